"""The papers' published numbers, transcribed; ours are shown beside them.

2022 paper: S. Ahmedeo, *Group Equivariant CNN and disentangling beta-VAE* (2022).
tiny paper: A. Shokry, A. Norelli, *Learning rotation-agnostic representations via group equivariant
VAEs* (ICLR 2023 Tiny Papers).
"""

from __future__ import annotations

TABLE1 = {  # 2022 paper, Table 1, by the headings of `tables.table1`
    "cnn": {"Train loss": 1.471, "Valid. loss": 1.473, "Test loss": 2.025, "Acc. rotated": 0.4301, "Params": "43k"},
    "gcnn": {"Train loss": 1.522, "Valid. loss": 1.496, "Test loss": 1.561, "Acc. rotated": 0.9022, "Params": "38k"},
}

BETAS = (0.01, 0.1, 1.0, 150.0, 500.0)
LATENT_DIMS = (3, 6, 10)
TABLE2 = {  # validation loss in thousands, rows d = 3, 6, 10, columns BETAS
    "sgvae": (  # both write-ups
        (43.38, 42.56, 43.13, 43.38, 44.54),
        (30.25, 30.94, 30.04, 32.96, 38.04),
        (48.27, 24.45, 24.68, 28.5, 35.47),
    ),
    "svae": (  # tiny paper
        (37.8, 38.3, 37.4, 38.4, 41.7),
        (21.9, 21.9, 22.2, 24.9, 29.8),
        (13.4, 13.5, 13.2, 18.1, 25.4),
    ),
}


def table2_loss(model: str, latent_dim: int, beta: float) -> float | None:
    """The papers' value of a cell of Table 2; None for a cell that they do not have."""
    if model not in TABLE2 or latent_dim not in LATENT_DIMS or beta not in BETAS:
        return None
    return TABLE2[model][LATENT_DIMS.index(latent_dim)][BETAS.index(beta)]


RECONSTRUCTION_ACCURACY = {  # tiny paper, Table 1: a classifier's accuracy on reconstructions
    "sgvae": {"upright": 0.91, "rotated": 0.79, "rotated 6s": 0.95, "rotated 9s": 0.66},
    "svae": {"upright": 0.97, "rotated": 0.32, "rotated 6s": 0.24, "rotated 9s": 0.28},
}

# What others report of digits turned by any angle, without labels where not said: by whom, what, under which protocol.
# None of it is ours, and the protocols differ from ours and from each other.
ROTATED_DIGITS = (
    (
        "GIAE: R. Winter et al., *Unsupervised learning of group invariant and equivariant representations*, NeurIPS 2022",
        "k-NN 90 %, squared error per pixel 0.0162",
        "rotated MNIST, 12,000 for training and 50,000 for testing; 32 numbers; digits in [0, 1], 28 × 28",
    ),
    (
        "the same idea in the code of ssl-sym",
        "5-NN 95.25 %",
        "rotated MNIST, 12,000 → 50,000; 200 numbers, 400 epochs",
    ),
    ("a supervised ResNet-18, there", "95.39 %", "rotated MNIST, 12,000 → 50,000, with all labels"),
    (
        "O2-VAE",
        "purity of 10 clusters 0.818 (Gaussian mixture after PCA), 0.737 (k-means)",
        "the training images' codes; rotated and mirrored digits, 32 × 32; loss at the best rotation and reflection",
    ),
    (
        "TARGET-VAE: A. Nasiri, T. Bepler, *Unsupervised object representation learning using translation and rotation "
        "group equivariant VAE*, NeurIPS 2022",
        "clusters 33.8 % right, without its discretised rotations, the only number found",
        "10,000 test images, k-means on means and standard deviations",
    ),
    (
        "spatial-VAE: T. Bepler et al., *Explicitly disentangling image content from translation and rotation with "
        "spatial-VAE*, NeurIPS 2019",
        "the ELBO only",
        "digits turned by angles of standard deviation π/4, not by any angle",
    ),
)
