"""Numbers about models: equivariance, accuracy, reconstructions, latent drift. Prints nothing.

Models are measured in eval mode; afterwards every module is in the mode it was in, so that a monitor inside a training
loop does not change the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from .models import evaluating
from .rotation import rotate, wrapped

BATCH = 250
MIXTURE_DIM = 32  # a Gaussian mixture of longer codes, such as pixels, is fitted to so many principal components


@torch.no_grad()
def equivariance_error(function: Callable, images: Tensor, degrees: float, transform: Callable | None = None) -> float:
    """How far ``function`` is from commuting with a rotation, relative to how images differ.

        || f(R x) - T f(x) || / || f(x) - mean over images of f(x) ||

    0 is exact equivariance; about 1.4 means that the turned image's output is as unlike as another image's. ``function``
    is f, images [N, C, H, H], at least two different ones, -> outputs [N, ...]; R turns by ``degrees``,
    counter-clockwise; ``transform`` is T, (outputs, degrees) -> outputs, none where the output should not change.
    """
    if len(images) < 2:
        raise ValueError(f"expected at least two images to compare with, got {len(images)}")
    with evaluating(function) if isinstance(function, nn.Module) else nullcontext():
        upright, turned = function(images), function(rotate(images, degrees))
    return _relative_error(turned, upright if transform is None else transform(upright, degrees), upright)


def _relative_error(turned: Tensor, expected: Tensor, upright: Tensor) -> float:
    return ((turned - expected).norm() / (upright - upright.mean(0)).norm()).item()


def rotate_field(field, degrees: float):
    """Turn a geometric tensor: rotate positions, and mix the fibres by rho(g).

    ``GeometricTensor.transform`` does the same but interpolates quarter turns, too.
    """
    radians = math.radians(degrees)
    element = field.type.fibergroup.element((0, radians) if field.type.gspace.flips_order else radians, "radians")
    turned = field.transform_fibers(element).tensor
    return type(field)(rotate(turned, degrees), field.type)


@torch.no_grad()
def layer_errors(encoder: nn.Module, images: Tensor, degrees: float) -> list[float]:
    """Equivariance error of each of a `SteerableEncoder`'s feature fields, then of its output.

    The same measure as `equivariance_error`; the encoder runs twice, whatever its depth.
    """
    errors = []
    with evaluating(encoder):
        turned_fields = encoder.feature_fields(rotate(images, degrees))
        for field, turned in zip(encoder.feature_fields(images), turned_fields):
            errors.append(_relative_error(turned.tensor, rotate_field(field, degrees).tensor, field.tensor))
        return [*errors, equivariance_error(encoder, images, degrees)]


@torch.no_grad()
def _in_batches(model: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply ``function`` batch by batch, with ``model`` in eval mode; the results on the CPU."""
    device = next(model.parameters()).device
    with evaluating(model):
        return torch.cat([function(batch.to(device)).cpu() for batch in images.split(BATCH)])


def logits(classifier: nn.Module, images: Tensor) -> Tensor:
    """Logits [N, 10] in eval mode."""
    return _in_batches(classifier, classifier, images)


def accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images [N, 1, H, W] whose largest logit is their label [N]; ValueError for another number of labels."""
    _check_labels(labels, images)
    return (logits(classifier, images).argmax(-1) == labels.cpu()).double().mean().item()


def confusion(classifier: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Counts [10, 10]: row the label [N] of an image [N, 1, H, W], column what the classifier says."""
    _check_labels(labels, images)
    if not ((labels >= 0) & (labels < 10)).all():
        raise ValueError(f"expected labels from 0 to 9, got {labels.min()} to {labels.max()}")
    said = logits(classifier, images).argmax(-1)
    return torch.bincount(10 * labels.cpu() + said, minlength=100).view(10, 10)


def _check_labels(labels: Tensor, images: Tensor) -> None:
    """Anything but one label for each image or code would be broadcast."""
    if labels.shape != images.shape[:1]:
        raise ValueError(f"expected labels [{len(images)}], one for each image or code, got {list(labels.shape)}")


def accuracy_by_angle(classifier: nn.Module, images: Tensor, labels: Tensor, angles: Sequence[float]) -> list[float]:
    """Accuracy on images [N, 1, H, H] with labels [N], all of them turned by each angle (degrees)."""
    return [accuracy(classifier, rotate(images, angle), labels) for angle in angles]


def latent_codes(model: nn.Module, images: Tensor) -> Tensor:
    """Modes of the posteriors [N, d] of images [N, C, H, H] in eval mode; on the sphere these are the mean directions."""
    return _in_batches(model, lambda batch: model.encode(batch).mode, images)


def decoded(model: nn.Module, codes: Tensor) -> Tensor:
    """Images [N, C, H, H] of codes [N, d], in eval mode, clamped to [0, 1]."""
    return _in_batches(model, model.decode, codes).clamp(0, 1)


def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions [N, C, H, H] from the modes of the posteriors of as many images, in eval mode, clamped to [0, 1]."""
    return decoded(model, latent_codes(model, images))


def redrawn(model: nn.Module, images: Tensor) -> Tensor:
    """`reconstruct`, but turned as the images came where the model says how: it then has a ``reconstruct`` of its own."""
    if not hasattr(model, "reconstruct"):
        return reconstruct(model, images)
    return _in_batches(model, model.reconstruct, images).clamp(0, 1)


def reconstruction_accuracy(
    judge: nn.Module, model: nn.Module, inputs: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Share of the reconstructions by ``model`` that a classifier reads right, by kind of input.

    ``inputs`` are images [N, 1, 28, 28] and labels [N] by kind; see `runs.measures.kinds_of_input`.
    """
    return {kind: accuracy(judge, reconstruct(model, images), labels) for kind, (images, labels) in inputs.items()}


def squared_error(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Mean over the pixels of (x - y)^2, [N], of images [N, C, H, W] in [0, 1]; 0 is a perfect copy."""
    if reconstructions.shape != images.shape:
        raise ValueError(f"expected reconstructions {list(images.shape)}, got {list(reconstructions.shape)}")
    return (reconstructions - images).square().flatten(1).mean(1)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between vectors [..., d]; accurate for small angles, where arccos is not.

    2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||), W. Kahan, *How futile are mindless assessments of
    roundoff in floating-point computation?* (2006), section 12.
    """
    a, b = (v / v.norm(dim=-1, keepdim=True) for v in (a, b))
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)))


def latent_drift(model: nn.Module, images: Tensor, angles: Sequence[float]) -> list[float]:
    """Mean angle (degrees) between the mean directions of images [N, C, H, H] turned by each angle (degrees) and upright."""
    upright = latent_codes(model, images)
    return [angle_between(latent_codes(model, rotate(images, angle)), upright).mean().item() for angle in angles]


def pair_angles(codes: Tensor, labels: Tensor, first: int, second: int) -> Tensor:
    """Angles (degrees) between the codes [N, d] of every two different images, one of each label."""
    _check_labels(labels, codes)
    a, b = ((labels == digit).nonzero()[:, 0] for digit in (first, second))
    angles = angle_between(codes[a, None], codes[None, b])
    return angles[a[:, None] < b[None] if first == second else a[:, None] != b[None]]


def typical_angle(codes: Tensor, labels: Tensor, *, same: bool = False) -> float:
    """Mean angle (degrees) between codes [N, d] of different digits, or of different images of the ``same`` digit.

    The yardsticks of `latent_drift`. Two random directions are 90 degrees apart, so the first alone says little.
    NaN where there are no such pairs.
    """
    _check_labels(labels, codes)
    alike = labels[:, None] == labels[None]
    chosen = alike.fill_diagonal_(False) if same else ~alike
    return angle_between(codes[:, None], codes[None])[chosen].mean().item()


def neighbour_accuracy(
    codes: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor, neighbours: int = 5
) -> float:
    """Share of codes [N, d] whose label is the commonest among their nearest known codes [M, d].

    What a search by code would find. Nearest by Euclidean distance, which on the sphere is nearest by angle and also
    fits normal codes and pixels; of a tie the smallest label.
    """
    if not 1 <= neighbours <= len(known):
        raise ValueError(f"expected between 1 and {len(known)} neighbours, the known codes; got {neighbours}")
    _check_labels(labels, codes)
    _check_labels(known_labels, known)
    judge = KNeighborsClassifier(neighbours).fit(known.numpy(), known_labels.numpy())
    return float(judge.score(codes.numpy(), labels.numpy()))


# --- how an image is turned, and clusters without labels --------------------------------------------


def resultant(degrees: Tensor) -> float:
    """R = |mean exp(i angle)| of angles [N] in degrees: 1 where all agree, about 0 where they are uniform."""
    radians = torch.deg2rad(degrees.double())
    return torch.hypot(radians.cos().mean(), radians.sin().mean()).item()


def mean_direction(degrees: Tensor) -> float:
    """Direction in degrees of the mean of the unit vectors at angles [N]."""
    radians = torch.deg2rad(degrees.double())
    return math.degrees(math.atan2(radians.sin().mean(), radians.cos().mean()))


def _up_to_an_offset(found: Tensor, true: Tensor) -> Tensor:
    """Distances [N] (degrees) of found - true from their mean direction."""
    if found.shape != true.shape or found.ndim != 1:
        raise ValueError(f"expected angles [N] and as many true ones, got {list(found.shape)} and {list(true.shape)}")
    return wrapped(found - true - mean_direction(found - true)).abs()


def poses(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """`PoseVAE.poses` of images [N, C, H, H] in eval mode, by batches: degrees [N], half widths of the 90 % arcs [N]."""
    return _in_batches(model, lambda batch: torch.stack(model.poses(batch), 1), images).unbind(1)


def handedness(model: nn.Module, images: Tensor) -> Tensor:
    """`PoseVAE.handedness` of images [N, C, H, H] in eval mode, batch by batch: 1 or -1, [N]."""
    return _in_batches(model, model.handedness, images)


def angle_errors(found: Tensor, true: Tensor) -> dict[str, float]:
    """How well angles [N] (degrees) are recovered, up to one offset that all share.

    ``resultant`` R of the differences, ``mean`` and ``median`` of their distance (degrees) from their common direction,
    the share ``within_10`` degrees of it, and ``half_turn``, the share nearer to the opposite direction. Not the
    circular correlation: for uniform angles it is ill-posed.
    """
    errors = _up_to_an_offset(found, true)
    return {
        "resultant": resultant(found - true),
        "mean": errors.mean().item(),
        "median": errors.median().item(),
        "within_10": (errors <= 10).double().mean().item(),
        "half_turn": (errors > 90).double().mean().item(),
    }


def resultant_by_class(degrees: Tensor, labels: Tensor, classes: int = 10) -> list[float]:
    """`resultant` within each class of angles [N]: is there one orientation that the class shares?"""
    return [resultant(degrees[labels == label]) for label in range(classes)]


def less_class_offset(found: Tensor, true: Tensor, labels: Tensor) -> Tensor:
    """Angles found [N] less the orientation common to their class, the mean direction of found - true; [-180, 180)."""
    relative = found.clone() if found.is_floating_point() else found.float()
    for label in labels.unique():
        chosen = labels == label
        relative[chosen] -= mean_direction((found - true)[chosen])
    return wrapped(relative)


def coverage(found: Tensor, half_widths: Tensor, true: Tensor) -> float:
    """Share of arcs, found ± half width [N] (degrees), that hold the true angle, up to one offset that all share."""
    return (_up_to_an_offset(found, true) <= half_widths).double().mean().item()


def cluster_scores(codes: Tensor, labels: Tensor, *, clusters: int = 10, seed: int = 0) -> dict[str, float]:
    """Clusters of codes [N, d], found without labels, against labels [N].

    For k-means and a Gaussian mixture (of codes longer than `MIXTURE_DIM`: of their principal components):
    ``hungarian``, the share right with the best one-to-one naming of the clusters, ``purity``, with the commonest label
    of each, and ``nmi``, the normalised mutual information.
    """
    codes, truth = codes.double().numpy(), labels.numpy()
    short = (
        codes
        if codes.shape[1] <= MIXTURE_DIM
        else PCA(min(MIXTURE_DIM, len(codes)), random_state=seed).fit_transform(codes)
    )
    found = {
        "kmeans": KMeans(clusters, n_init=10, random_state=seed).fit_predict(codes),
        "mixture": GaussianMixture(clusters, n_init=3, reg_covar=1e-4, random_state=seed).fit_predict(short),
    }
    scores = {}
    for name, assigned in found.items():
        counts = contingency_matrix(assigned, truth)
        scores[f"{name}_hungarian"] = counts[linear_sum_assignment(counts, maximize=True)].sum() / len(truth)
        scores[f"{name}_purity"] = counts.max(1).sum() / len(truth)
        scores[f"{name}_nmi"] = normalized_mutual_info_score(truth, assigned)
    return scores
