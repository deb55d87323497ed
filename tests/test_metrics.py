"""Metrics against independent oracles."""

import math

import pytest
import torch
from escnn import gspaces
from escnn.nn import FieldType, GeometricTensor

from gvae_core import CNNClassifier, GCNNClassifier, metrics, rotate, sgvae, svae


def test_equivariance_error_of_known_functions(digits):
    images = digits.images[:8]
    assert metrics.equivariance_error(lambda x: x.sum((2, 3)), images, 90) < 1e-6
    assert metrics.equivariance_error(lambda x: x, images, 90, rotate) == 0
    # f(R x) - f(x) = R x - x, by hand
    spread = (images - images.mean(0)).norm()
    expected = ((torch.rot90(images, 1, (2, 3)) - images).norm() / spread).item()
    assert metrics.equivariance_error(lambda x: x, images, 90) == pytest.approx(expected, rel=1e-6)


def test_equivariance_error_needs_two_images(digits):
    with pytest.raises(ValueError, match="at least two images .* got 1"):
        metrics.equivariance_error(lambda x: x, digits.images[:1], 90)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotate_field_agrees_with_escnn(degrees):
    gspace = gspaces.rot2dOnR2(maximum_frequency=2)
    irreps = [gspace.irrep(m) for m in range(3)]
    field = GeometricTensor(torch.randn(2, 5, 7, 7), FieldType(gspace, irreps))
    theirs = field.transform(gspace.fibergroup.element(math.radians(degrees), "radians")).tensor
    assert torch.allclose(metrics.rotate_field(field, degrees).tensor, theirs, atol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, 90.0, 179.9])
def test_angle_between(angle):
    a = torch.tensor([3.0, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))], dtype=torch.float64)
    assert metrics.angle_between(a, 0.2 * b).item() == pytest.approx(angle, rel=1e-9, abs=1e-12)


def test_accuracy_counts(digits):
    class Oracle(torch.nn.Module):
        """Says the true label for the first half, label + 1 for the second."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            found = (digits.images[:40, None] == images[None, :, :]).flatten(2).all(2)
            index = found.float().argmax(0)
            label = (digits.labels[index] + (index >= 20)) % 10
            return torch.nn.functional.one_hot(label, 10).float()

    assert metrics.accuracy(Oracle(), digits.images[:40], digits.labels[:40]) == 0.5


def test_accuracy_by_angle_starts_from_the_upright_accuracy(digits):
    model = CNNClassifier((2, 2, 2))
    x, y = digits.images[:40], digits.labels[:40]
    accuracies = metrics.accuracy_by_angle(model, x, y, [0, 90, 360])
    assert accuracies[0] == accuracies[2] == metrics.accuracy(model, x, y)


def test_latent_numbers(digits):
    model = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4))
    images = digits.images[:30]
    codes = metrics.latent_codes(model, images)
    assert torch.allclose(codes.norm(dim=1), torch.ones(30), atol=1e-6)
    assert torch.equal(codes, model.eval().encode(images).loc.detach())
    drift = metrics.latent_drift(model, images, [0, 90])
    by_hand = torch.rad2deg(torch.arccos((codes * metrics.latent_codes(model, rotate(images, 90))).sum(1).clamp(-1, 1)))
    assert drift[0] == 0 and drift[1] == pytest.approx(by_hand.mean().item(), abs=0.05)
    square = torch.eye(2)
    assert metrics.typical_angle(square, torch.tensor([3, 5])) == pytest.approx(90)


def test_reconstructions_are_images(digits):
    model = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4))
    first, second = (metrics.reconstruct(model, digits.images[:300]) for _ in range(2))
    assert first.shape == (300, 1, 28, 28) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, second)  # from the mode, not from a sample


def test_confusion_counts_labels_by_what_is_said(digits):
    model = CNNClassifier(channels=(2, 2, 4))
    said = metrics.logits(model, digits.images[:50]).argmax(-1)
    counts = metrics.confusion(model, digits.images[:50], digits.labels[:50])
    expected = torch.zeros(10, 10, dtype=torch.long)
    for label, digit in zip(digits.labels[:50], said):
        expected[label, digit] += 1
    assert torch.equal(counts, expected)


@pytest.mark.parametrize("spherical", [True, False])
def test_neighbour_accuracy_is_by_angle_on_the_sphere_and_by_distance_elsewhere(spherical):
    known, codes = torch.randn(200, 4).double(), torch.randn(60, 4).double()
    known_labels, labels = torch.randint(3, (200,)), torch.randint(3, (60,))
    if spherical:
        known, codes = (torch.nn.functional.normalize(v, dim=1) for v in (known, codes))
    far = metrics.angle_between(codes[:, None], known) if spherical else torch.cdist(codes, known)
    expected = known_labels[far.topk(5, largest=False).indices].mode(-1).values == labels
    found = metrics.neighbour_accuracy(codes, labels, known, known_labels)
    assert found == pytest.approx(expected.double().mean().item())
    with pytest.raises(ValueError, match="between 1 and 200 neighbours, the known codes; got 201"):
        metrics.neighbour_accuracy(codes, labels, known, known_labels, 201)


def test_pair_angles_are_those_of_different_images():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    labels = torch.tensor([6, 6, 9, 9])
    assert metrics.pair_angles(codes, labels, 6, 6).tolist() == pytest.approx([90])
    assert sorted(metrics.pair_angles(codes, labels, 6, 9).tolist()) == pytest.approx([45, 45, 90, 180])


MEASURES = {
    "equivariance_error": lambda classifier, vae, x, y: metrics.equivariance_error(classifier, x, 30),
    "layer_errors": lambda classifier, vae, x, y: metrics.layer_errors(vae.encoder, x, 90),
    "accuracy": lambda classifier, vae, x, y: metrics.accuracy(classifier, x, y),
    "accuracy_by_angle": lambda classifier, vae, x, y: metrics.accuracy_by_angle(classifier, x, y, [0, 45]),
    "confusion": lambda classifier, vae, x, y: metrics.confusion(classifier, x, y).tolist(),
    "latent_drift": lambda classifier, vae, x, y: metrics.latent_drift(vae, x, [90]),
    "reconstruct": lambda classifier, vae, x, y: metrics.reconstruct(vae, x).tolist(),
    "reading": lambda classifier, vae, x, y: metrics.reconstruction_accuracy(classifier, vae, {"upright": (x, y)}),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_taken_in_eval_mode_and_leaves_the_model_as_it_was(digits, name):
    classifier = GCNNClassifier((2, 2, 4), 2, dropout=0.5)
    vae = sgvae(3, fields=(2, 2, 4), frequency=2, invariants=8, decoder_channels=(4, 4, 4))
    models = (classifier, vae)
    images, labels = digits.images[:16], digits.labels[:16]
    for model in models:
        model(images)  # statistics to lose
        model.train()
    classifier.head.eval()  # a part that the caller keeps in eval mode
    modes = [[module.training for module in model.modules()] for model in models]
    states = [{key: value.clone() for key, value in model.state_dict().items()} for model in models]

    first, second = (MEASURES[name](classifier, vae, images, labels) for _ in range(2))

    assert [[module.training for module in model.modules()] for model in models] == modes
    for model, state in zip(models, states):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for model in models:
        model.eval()
    assert first == second == MEASURES[name](classifier, vae, images, labels)


def test_a_failing_measure_leaves_the_mode_alone(digits):
    model = CNNClassifier((2, 2, 2))
    with pytest.raises(ValueError):
        metrics.logits(model, digits.images[:3, :, 1:])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("labels", [torch.tensor(3), torch.tensor([3]), torch.zeros(7, 1).long()])
def test_labels_are_not_broadcast(digits, labels):
    model, images, codes = CNNClassifier((2, 2, 2)), digits.images[:7], torch.randn(7, 3)
    for measure in (
        lambda: metrics.accuracy(model, images, labels),
        lambda: metrics.confusion(model, images, labels),
        lambda: metrics.typical_angle(codes, labels),
        lambda: metrics.neighbour_accuracy(codes, labels, codes, digits.labels[:7]),
        lambda: metrics.neighbour_accuracy(codes, digits.labels[:7], codes, labels),
    ):
        with pytest.raises(ValueError, match=r"expected labels \[7\], one for each image or code, got \["):
            measure()


def test_squared_error_does_not_broadcast(digits):
    with pytest.raises(ValueError, match=r"expected reconstructions \[3, 1, 28, 28\], got \[1, 1, 28, 28\]"):
        metrics.squared_error(digits.images[:1], digits.images[:3])


def test_angles_and_codes_are_checked_too(digits):
    angles = torch.linspace(0, 90, 20)
    for measure in (metrics.angle_errors, lambda *pair: metrics.coverage(pair[0], torch.ones(20), pair[1])):
        with pytest.raises(ValueError, match=r"expected angles \[N\] and as many true ones, got \[20, 1\] and \[20\]"):
            measure(angles[:, None], angles)
    with pytest.raises(ValueError, match="expected labels from 0 to 9, got 3 to 12"):
        metrics.confusion(CNNClassifier((2, 2, 2)), digits.images[:2], torch.tensor([3, 12]))
    whole = metrics.less_class_offset(torch.tensor([10, 50]), torch.tensor([0, 40]), torch.tensor([1, 1]))
    assert torch.allclose(whole, torch.tensor([0.0, 40.0]), atol=1e-4)
    few = metrics.cluster_scores(torch.randn(20, 50), torch.arange(20) % 10)  # fewer than the components of a mixture
    assert 0 <= few["mixture_hungarian"] <= 1
