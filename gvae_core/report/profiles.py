"""The profiles: which runs each notebook asks for, at which size.

smoke: every cell executes, nothing is learned. quick: real numbers on a laptop. paper: the papers', with
variants of ours beside them (a wide first kernel, other layouts, two frames, a short schedule).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from ..files import PROFILES
from ..mnist import TRAINING_DIGITS, load_mnist
from ..runs.kinds import AUTOENCODERS
from ..runs.results import Result, find
from ..runs.spec import MODEL_VERSION, TEST_DIGITS, RunSpec
from . import papers

# Networks by profile; the paper profile has the builders' own sizes, the papers'. Quick uses the isotropic layout: the
# papers' kernel 4 holds a single ring of filters and learns many times slower (notebooks 01 and 02). Of the layouts and
# frequencies 2 to 4 it learns most in the same time.
_SMOKE = dict(fields=(2, 2, 4), frequency=2)
_SMOKE_SGVAE = _SMOKE | dict(invariants=8, decoder_channels=(8, 8, 8))
_QUICK = dict(fields=(8, 16, 16), frequency=2, layout="isotropic", dropout=0.0)
_GCNN_SIZES = {"smoke": _SMOKE, "quick": _QUICK | dict(invariants=32), "paper": {}}
_SGVAE_SIZES = {
    "smoke": _SMOKE_SGVAE,
    "quick": _QUICK | dict(decoder_channels=(64, 64, 32)),
    "paper": {},
}
_SVAE_SIZES = {
    "smoke": dict(channels=(8, 8, 8), decoder_channels=(8, 8, 8)),
    "quick": dict(channels=(32, 32, 64), decoder_channels=(64, 64, 32), dropout=0.0),
    "paper": {},
}
# Beyond the papers, within their parameter counts (38k, 0.9 M): other layouts (models.LAYOUTS).
_ODD_GCNN = dict(fields=(10, 16, 16), frequency=4, layout="table1_odd", invariants=32, dropout=0.0)
_ISOTROPIC_GCNN = dict(fields=(8, 14, 22), frequency=4, layout="isotropic", invariants=32, dropout=0.0)
_ISOTROPIC_SGVAE = dict(fields=(32, 64, 176), frequency=2, layout="isotropic", dropout=0.0)
# Two frames are twice the work, hence fewer fields; the parameters went to the decoder.
_FRAMES_SGVAE = dict(fields=(16, 32, 96), frequency=2, layout="isotropic", frames=2, invariants=128, dropout=0.0)
_FRAMES_SGVAE |= dict(decoder_channels=(224, 128, 64))
# All else as in the report, and 38,838 parameters: with frequency 5 the first kernel hardly shows in their number.
_WIDE_FIRST_GCNN = dict(layout="table1_wide")
# By group, 13.4 to 13.7 thousand parameters; the band limit is the highest frequency that C8 has.
_GROUPS = {"C4": (8, 12, 15), "C8": (6, 8, 12), "SO(2)": (6, 8, 12), "O(2)": (4, 6, 8)}
_GROUP_GCNN = dict(frequency=4, layout="isotropic", invariants=32, dropout=0.0)
_GROUP_TRAINING = {"smoke": (1, 50), "quick": (3, 50), "paper": (8, 100)}  # epochs, batch
# Of the models trained on digits that were never upright. With frequency 2 five neighbours name 89 % of quick's digits, with
# 3 instead 83 %, with 1 67 %.
_POSE = dict(fields=(8, 16, 32), frequency=2, layout="isotropic")
_BORN_ROTATED_SGVAE = {
    "smoke": _SMOKE_SGVAE | {"layout": "isotropic"},
    "quick": _POSE | dict(invariants=64, decoder_channels=(64, 48, 32)),
    "paper": _POSE,
}
# Training digits, test digits, batch. quick must stay quick where the full MNIST is at hand; small batches make up for
# few digits.
_DIGITS = {"smoke": (200, 100, 50), "quick": (4000, 500, 25), "paper": (None, None, 100)}
# The same of those that were never upright, and epochs, of the model with a pose and of the S-VAE; 12,000 training digits
# are those of rotated MNIST's protocol.
_BORN_ROTATED = {"smoke": (200, 100, 50, 1, 1), "quick": (4000, 500, 50, 8, 8), "paper": (12_000, 5_000, 50, 48, 24)}
# Of the slower ones beside them, trained until their loss is flat: batch, epochs (spatial-VAE and S-GVAE without a pose,
# CNN), width of the spatial-VAE. The S-GVAE has a larger network, which does not help it: its code cannot hold an angle.
_BASELINES = {"smoke": (50, 1, 1, 8), "quick": (50, 8, 4, 128), "paper": (100, 12, 20, 128)}
_WITHOUT_POSE = dict(fields=(16, 32, 48), frequency=3, layout="isotropic", invariants=96)
_SPATIAL_BETA, _SPATIAL_RATE = 10.0, 0.003  # of a few tried, what clustered best
_CNN_SIZES = dict(channels=(32, 64, 128))
# The committed results are of this version; a change to `spec.MODEL_VERSION` asks for all of them anew.
_MODEL_VERSION = 1
_SHORT_EPOCHS = 8
# Of images of one's own: how many are seen in training, and of the network what is not as usual.
_OWN_IMAGES = {"smoke": (200, _SMOKE_SGVAE), "quick": (12_000, {}), "paper": (100_000, {})}
# Epochs of the classifiers, the models of Figure 1, those of notebook 03, the cells of Table 2.
_EPOCHS = {"smoke": (1, 1, 1, 1), "quick": (5, 11, 3, 2), "paper": (50, 100, _SHORT_EPOCHS, 50)}
# The cells of Table 2.
_BETAS = {"smoke": (0.1,), "quick": (0.1, 500.0), "paper": papers.BETAS}


def resolve_source(source: str) -> str:
    """``auto`` -> the source that `mnist.load_mnist` finds on this machine; a named one stays, there or not."""
    return load_mnist(source).source if source == "auto" else source


def _epochs(profile: str) -> tuple[int, int, int, int]:
    if profile not in PROFILES:
        raise ValueError(f"expected a profile among {', '.join(PROFILES)}; got {profile!r}")
    return _EPOCHS[profile]


def _spec(model: str, profile: str, source: str, seed: int, *, epochs: int, paper_decay: float | None, **fields):
    """A run on the profile's digits, with the papers' decay per epoch or one that ends at a small learning rate."""
    train, test, batch = _DIGITS[profile]
    data = dict(source=resolve_source(source), train_images=train, test_images=test, batch_size=batch)
    decay = paper_decay if profile == "paper" and paper_decay else 0.03 ** (1 / epochs)
    common = dict(seed=seed, epochs=epochs, decay=decay, model_version=_MODEL_VERSION)
    return RunSpec(model=model, **data | common | fields)


def table1(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """CNN and G-CNN of Table 1 (report), trained on upright digits.

    First both with the report's loss, then both with plain cross-entropy, the variant that shows what
    the second softmax costs. In the paper profile then the report's G-CNN with a wide first kernel, and last
    the G-CNN with odd kernels and with the isotropic layout.
    """
    which = (profile, source, seed)
    rate = 0.001 if profile == "paper" else 0.01  # a short training with the report's loss needs the pace
    theirs = dict(epochs=_epochs(profile)[0], paper_decay=0.95, learning_rate=rate)
    specs = [
        _spec(model, *which, sizes=sizes, paper_loss=paper_loss, **theirs)
        for paper_loss in (True, False)
        for model, sizes in (("cnn", {}), ("gcnn", _GCNN_SIZES[profile]))
    ]
    if profile == "paper":
        short = dict(epochs=_SHORT_EPOCHS, paper_decay=None, learning_rate=0.01, paper_loss=False)
        specs.append(_spec("gcnn", *which, sizes=_WIDE_FIRST_GCNN, paper_loss=True, **theirs))
        specs += [_spec("gcnn", *which, sizes=sizes, **short) for sizes in (_ODD_GCNN, _ISOTROPIC_GCNN)]
    return specs


def groups(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """G-CNNs with other fibre groups and as many parameters, trained on upright digits with plain cross-entropy."""
    epochs, batch = _GROUP_TRAINING[profile]
    common = dict(epochs=epochs, batch_size=batch, paper_decay=None, learning_rate=0.01, paper_loss=False)
    common |= dict(model_version=MODEL_VERSION)
    if profile == "smoke":
        sizes = {group: _SMOKE | {"layout": "isotropic"} for group in _GROUPS}
    else:
        sizes = {group: _GROUP_GCNN | {"fields": fields} for group, fields in _GROUPS.items()}
    return [_spec("gcnn", profile, source, seed, sizes=sizes[group] | {"group": group}, **common) for group in _GROUPS]


def judge(profile: str, source: str, seed: int = 0) -> RunSpec:
    """The classifier that reads reconstructions: Table 1's CNN with plain cross-entropy."""
    return next(spec for spec in table1(profile, source, seed) if spec.model == "cnn" and not spec.paper_loss)


def autoencoder(model: str, profile: str, source: str, seed: int, **fields: object) -> RunSpec:
    """One autoencoder of the profile's size; ``fields`` (latent_dim, beta and epochs at least) leave the common ones."""
    sizes = (_SVAE_SIZES if model == "svae" else _SGVAE_SIZES)[profile]
    common = dict(learning_rate=0.005, weight_decay=1e-5, paper_decay=0.9, sizes=sizes)
    return _spec(model, profile, source, seed, **common | fields)


def table2(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """The grid of Table 2, S-GVAE and S-VAE: latent dimension x beta."""
    return [
        autoencoder(model, profile, source, seed, latent_dim=dim, beta=beta, epochs=_epochs(profile)[3])
        for model in ("sgvae", "svae")
        for dim in papers.LATENT_DIMS
        for beta in _BETAS[profile]
    ]


def two_frames(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """Two cells of Table 2 on its own schedule, with two frames in the isotropic layout and fewer parameters."""
    sizes = _FRAMES_SGVAE if profile == "paper" else _SGVAE_SIZES[profile] | dict(layout="isotropic", frames=2)
    common = dict(beta=0.1, epochs=_epochs(profile)[3], sizes=sizes)
    return [autoencoder("sgvae", profile, source, seed, latent_dim=dim, **common) for dim in (6, 10)]


def best_models(profile: str, source: str, seed: int = 0) -> dict[str, RunSpec]:
    """The models of Figure 1: beta = 0.1; the S-GVAE with d = 6, the S-VAE with d = 10; twice Table 2's epochs."""
    common = dict(beta=0.1, epochs=_epochs(profile)[1])
    dims = {"sgvae": 6, "svae": 10}
    return {model: autoencoder(model, profile, source, seed, latent_dim=dims[model], **common) for model in dims}


def sphere_and_plane(profile: str, source: str, seed: int = 0, *, dims: tuple[int, int] = (3, 2)) -> dict[str, RunSpec]:
    """An S-GVAE on the sphere in 3-space and a Gaussian VAE on the plane, with the same encoder; or of other ``dims``.

    In the paper profile both have the isotropic layout and the short schedule, which ends at a small learning rate: what
    they are worth is seen at the end of a training.
    """
    common = dict(beta=1.0, epochs=_epochs(profile)[2], paper_decay=None)
    if profile == "paper":
        common |= dict(sizes=_ISOTROPIC_SGVAE)
    return {
        model: autoencoder(model, profile, source, seed, latent_dim=dim, **common)
        for model, dim in zip(("sgvae", "gaussian"), dims, strict=True)
    }


def sphere_and_gaussian(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """`sphere_and_plane`, and in the paper profile the same with d = 6 for both."""
    specs = list(sphere_and_plane(profile, source, seed).values())
    return specs + (list(sphere_and_plane(profile, source, seed, dims=(6, 6)).values()) if profile == "paper" else [])


def short_schedule(source: str, seed: int = 0) -> list[RunSpec]:
    """The papers' size with a short schedule of ours, all d = 10: the S-GVAE in the isotropic layout, with two frames
    and with one, and the S-VAE."""
    common = dict(latent_dim=10, beta=0.1, epochs=_SHORT_EPOCHS, paper_decay=None)
    return [
        autoencoder("sgvae", "paper", source, seed, sizes=_FRAMES_SGVAE, batch_size=50, **common),
        autoencoder("sgvae", "paper", source, seed, sizes=_ISOTROPIC_SGVAE, **common),
        autoencoder("svae", "paper", source, seed, **common),
    ]


def born_rotated(profile: str, source: str, seed: int = 0) -> dict[str, RunSpec]:
    """Trained on digits that were never upright: the S-GVAE with a pose, the S-GVAE and the S-VAE without one, the
    spatial-VAE, and with their labels a CNN. Quick has neither the S-GVAE without a pose nor the spatial-VAE."""
    train, test, batch, epochs, svae_epochs = _BORN_ROTATED[profile]
    source = resolve_source(source)
    digits = dict(
        protocol="born_rotated",
        paper_decay=None,
        batch_size=batch,
        train_images=min(train, TRAINING_DIGITS[source]),
        test_images=min(test, TEST_DIGITS[source]),
        model_version=MODEL_VERSION,
    )
    common = digits | dict(epochs=epochs, latent_dim=32 if profile != "smoke" else 4, beta=0.1)
    sizes = _BORN_ROTATED_SGVAE[profile]
    plain = _SVAE_SIZES["smoke" if profile == "smoke" else "quick"]
    # Dropout costs a short training more than it gives: 362 instead of 307 of squared error after three quick epochs.
    none = dict(dropout=0.0, inner_dropout=0.0)
    batch, slow_epochs, cnn_epochs, hidden = _BASELINES[profile]
    slow = common | dict(batch_size=batch, epochs=slow_epochs)
    without = sizes if profile == "smoke" else _WITHOUT_POSE
    networks = {
        "pose": ("sgvae", sizes | {"pose": True}, common),
        "sgvae": ("sgvae", without, slow),
        "svae": ("svae", plain, common | dict(epochs=svae_epochs)),
    }
    specs = {
        name: autoencoder(model, profile, source, seed, sizes=sizes | none, **training)
        for name, (model, sizes, training) in networks.items()
    }
    spatial = slow | dict(beta=_SPATIAL_BETA, learning_rate=_SPATIAL_RATE, sizes=dict(hidden=hidden))
    specs["spatial"] = _spec("spatial", profile, source, seed, **spatial)
    cnn = digits | dict(batch_size=batch, epochs=cnn_epochs, learning_rate=0.005, paper_loss=False, sizes=_CNN_SIZES)
    specs["cnn"] = _spec("cnn", profile, source, seed, **cnn)
    if profile == "quick":  # three minutes: an S-GVAE without a pose costs as much as one with it
        del specs["sgvae"], specs["spatial"]
    return specs


def own_images(profile: str, seed: int, count: int) -> dict[str, object]:
    """Arguments of `RotationAgnosticEmbedding` for so many images."""
    seen, network = _OWN_IMAGES[profile]
    return dict(latent_dim=16, epochs=seen / count, batch_size=25, network=network, seed=seed)


def reconstructions(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """The judge and the models it reads: the best under both protocols, and those of the short schedule."""
    best = best_models(profile, source, seed).values()
    rotated = [dataclasses.replace(spec, protocol="rotated") for spec in best]
    short = short_schedule(source, seed) if profile == "paper" else []
    return [judge(profile, source, seed), *best, *rotated, *short]


# What `gvae run` computes, by the table's name: (profile, source, seed) -> runs.
Table = Callable[[str, str, int], list[RunSpec]]
TABLES: dict[str, Table] = {
    "table1": table1,
    "table2": table2,
    "two_frames": two_frames,
    "retrain": lambda *which: list(best_models(*which).values()),
    "reconstructions": reconstructions,
    "sphere_and_gaussian": sphere_and_gaussian,
    "born_rotated": lambda *which: list(born_rotated(*which).values()),
    "groups": groups,
}


def full_size_results(table: str, seeds: Iterable[int] = range(5)) -> list[Result]:
    """What is there of a table at the papers' size, trained here or committed; a result may be incomplete."""
    specs = [spec for seed in seeds for spec in TABLES[table]("paper", "mnist", seed)]
    return [result for result in (find(spec, incomplete=True) for spec in specs) if result]


def full_size_models() -> list[Result]:
    """Autoencoders of the papers' size whose checkpoints are there, trained here or committed."""
    results = full_size_results("reconstructions", seeds=[0])
    return [result for result in results if result.spec.model in AUTOENCODERS and result.checkpoint.is_file()]


def full_size_pair() -> dict[str, Result]:
    """The S-GVAE and the S-VAE of the papers' size that figures show, by model: trained upright, the first of each."""
    pair: dict[str, Result] = {}
    for result in full_size_models():
        if result.spec.protocol == "upright":
            pair.setdefault(result.spec.model, result)
    return pair


def best_judge(profile: str, source: str, seed: int = 0) -> RunSpec:
    """The judge of the papers' size where it is trained, here or committed; the profile's own otherwise."""
    full_size = judge("paper", "mnist")
    found = find(full_size)
    return full_size if found and found.checkpoint.is_file() and profile != "smoke" else judge(profile, source, seed)
