"""The networks: sizes, shapes, invariance, numbers that stay finite, and files."""

import copy
import math
import os

import pytest
import torch
from examples import FORMATS, own_images
from torch.distributions import kl_divergence

from gvae_core import load_model, metrics, save_model
from gvae_core.checkpoints import load_tensors, save_tensors
from gvae_core.models import (
    LAYOUTS,
    CNNClassifier,
    ConvolutionalEncoder,
    EncoderLayout,
    GCNNClassifier,
    ImageFormat,
    SteerableEncoder,
    inputs,
    parameter_count,
    reading,
    sgvae,
    svae,
)
from gvae_core.models.encoders import GROUPS
from gvae_core.rotation import rotate

SMALL = dict(fields=(2, 2, 4), frequency=3)


def small_sgvae(**arguments):
    return sgvae(**SMALL, invariants=8, decoder_channels=(8, 8, 8), **arguments)


def test_table_1_parameter_counts():
    assert parameter_count(CNNClassifier()) == 42_730
    gcnn = GCNNClassifier()
    # convolutions and batch norms of the three blocks: the table's 38k as identified
    assert parameter_count(gcnn.encoder.blocks[:3]) == 37_904
    assert parameter_count(gcnn) == 38_454


@pytest.mark.slow
def test_autoencoders_have_about_the_papers_800k():
    for model in (sgvae(), svae()):
        assert 0.75e6 < parameter_count(model) < 0.95e6


def test_shapes(digits):
    images = digits.images[:3]
    assert CNNClassifier()(images).shape == GCNNClassifier(**SMALL)(images).shape == (3, 10)
    for model, dim in ((small_sgvae(latent_dim=5), 5), (svae(7), 7), (small_sgvae(latent_dim=2, gaussian=True), 2)):
        reconstruction, posterior, z = model(images)
        assert reconstruction.shape == images.shape and z.shape == (3, dim)
        assert posterior.batch_shape == (3,) and posterior.event_shape == (dim,)
        assert model.canvas(images).shape == model.decode_canvas(z).shape == (3, 1, 32, 32)


def test_canvas_and_decode_speak_of_the_same_pixels(digits):
    model = svae(4).eval()
    z = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
    inner = model.decode_canvas(z)[..., 2:30, 2:30]
    assert torch.allclose(inputs.MNIST_FORMAT.standardised(model.decode(z)), inner, atol=1e-5)
    assert torch.allclose(
        model.canvas(digits.images[:3])[..., 2:30, 2:30], inputs.MNIST_FORMAT.standardised(digits.images[:3])
    )


# --- images of one's own --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.channels}x{form.size}")
def test_every_network_takes_images_of_every_size_and_number_of_channels(form):
    x = own_images(form)
    shape, canvas = list(x.shape), [3, form.channels, form.size + 4, form.size + 4]
    for model in (
        small_sgvae(latent_dim=4, layout="isotropic", images=form),
        small_sgvae(latent_dim=4, images=form),
        svae(4, channels=(2, 2, 2), decoder_channels=(2, 2, 2), images=form),
    ):
        assert list(model(x)[0].shape) == shape and list(model.decode(model.encode(x).mode).shape) == shape
        assert list(model.canvas(x).shape) == list(model.decode_canvas(model.encode(x).mode).shape) == canvas
    assert CNNClassifier((2, 2, 2), classes=12, images=form)(x).shape == (3, 12)
    gcnn = GCNNClassifier((2, 2, 2), 2, layout="isotropic", classes=12, images=form)
    assert gcnn(x).shape == (3, 12)
    assert max(metrics.layer_errors(gcnn.encoder.eval(), x, 90)) <= 1e-5


def test_layouts_grow_by_a_blurred_stride_a_doubling():
    sizes = {size: LAYOUTS["isotropic"].fitted(size) for size in (28, 33, 48, 64, 96, 128)}
    assert [layout.grid_size for layout in sizes.values()] == [33, 33, 49, 65, 97, 129]
    blurs = [layout.blur_strides for layout in sizes.values()]
    assert blurs == [(1, 2, 1)] * 3 + [(2, 2, 1)] * 2 + [(2, 2, 2)]
    assert all(LAYOUTS[name].fitted(28) is LAYOUTS[name] for name in LAYOUTS)


def test_a_format_says_what_it_cannot_be_and_what_it_got():
    for arguments, message in (
        (dict(size=20), "size to be a whole number of at least 28, got 20"),
        (dict(size=256), "28 to 128 pixels, got size 256"),
        (dict(channels=0), "channels .* got 0"),
        (dict(channels=3, mean=(0.1, 0.2)), r"mean to be finite, one number or 3, got \(0.1, 0.2\)"),
        (dict(std=0), "std to be finite above 0, one number or 1, got 0.0"),
        (dict(std=math.nan), "std .* got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageFormat(**arguments)
    model = svae(4, channels=(2, 2, 2), decoder_channels=(2, 2, 2), images=ImageFormat(48, channels=3))
    with pytest.raises(ValueError, match=r"images \[N, 3, 48, 48\], got \[2, 1, 48, 48\]"):
        model.encode(torch.zeros(2, 1, 48, 48))


def test_a_measured_format_knows_background_and_spread():
    x = own_images(ImageFormat(48, channels=3), 50)
    faded = ImageFormat.measured(x)
    assert (faded.size, faded.channels, faded.fade) == (48, 3, True)
    assert faded.mean == pytest.approx((0.95,) * 3, abs=0.01) and faded.std[0] > faded.std[2] > 0.05
    plain = ImageFormat.measured(x, fade=False)
    assert plain.mean == pytest.approx(x.mean((0, 2, 3)).tolist())
    assert plain.standardised(x).square().mean().item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(faded.restored(faded.standardised(x)), x, atol=1e-6)
    assert ImageFormat.measured(torch.ones(4, 1, 28, 28)).std == (1.0,)  # a channel may be the same everywhere


def test_a_background_that_is_not_black_leaves_neither_frame_nor_wedges():
    white = torch.full((2, 3, 48, 48), 0.95)
    white[0, :, :6, :6] = 0  # a dark corner turns out of sight
    form = ImageFormat(48, channels=3, mean=0.95, std=0.3, fade=True)
    assert form.on_grid(white, 65, (0.0, 30.0)).abs().max() < 1e-6
    assert (form.turned(white, 37.0) - 0.95).abs().max() < 1e-6
    assert ImageFormat(48, channels=3).on_grid(white, 65).std() > 1 and rotate(white[1:], 37.0).min() == 0


@pytest.mark.parametrize("size", [28, 29, 32, 33])
def test_fit_to_grid_keeps_the_centre(digits, size):
    images = digits.images[:4]
    fitted = inputs.fit_to_grid(images, size)
    assert fitted.shape[-2:] == (size, size)
    assert torch.allclose(
        inputs.fit_to_grid(torch.rot90(images, 1, (2, 3)), size), torch.rot90(fitted, 1, (2, 3)), atol=1e-7
    )


def test_fit_to_grid_refuses_a_smaller_grid():
    with pytest.raises(ValueError, match="at least 28.*got 27"):
        inputs.fit_to_grid(torch.zeros(1, 1, 28, 28), 27)


ENCODERS = {
    **{
        f"sgvae {name}": lambda name=name: small_sgvae(layout=name).encoder for name in LAYOUTS if name != "table1_wide"
    },
    "sgvae two frames": lambda: small_sgvae(layout="isotropic", frames=2).encoder,
    "gcnn": lambda: GCNNClassifier(**SMALL).encoder,
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_quarter_turns_are_exact_in_every_layer(digits, name, degrees):
    errors = metrics.layer_errors(ENCODERS[name]().eval(), digits.images[:8], degrees)
    assert max(errors) <= 1e-5, errors


def small_gcnn(group: str, layout: str = "isotropic") -> GCNNClassifier:
    return GCNNClassifier((2, 2, 4), 2, layout=layout, invariants=8, dropout=0.0, group=group)


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_group_ignores_quarter_turns_and_o2_mirror_images_as_well(digits, group):
    model, images = small_gcnn(group), digits.images[:16]
    model(images)  # statistics that are not the initial ones
    encoder = model.encoder.eval()
    assert max(metrics.layer_errors(encoder, images, 90)) <= 1e-5
    with torch.no_grad():
        upright = encoder(images)
        for axis in (-1, -2):
            moved = ((encoder(images.flip(axis)) - upright).norm() / (upright - upright.mean(0)).norm()).item()
            assert moved <= 1e-5 if group == "O(2)" else moved > 0.01, moved


def test_reflections_mix_the_fields_of_o2_as_they_mix_the_plane(digits):
    encoder, images = small_gcnn("O(2)").encoder.eval(), digits.images[:4]
    mirror = encoder.blocks[0].in_type.fibergroup.reflection
    with torch.no_grad():
        for field, mirrored in zip(encoder.feature_fields(images), encoder.feature_fields(images.flip(-2))):
            expected = field.transform_fibers(mirror).tensor.flip(-2)
            assert (mirrored.tensor - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
def test_codes_of_o2_ignore_mirror_images_with_frames_too(digits):
    sizes = dict(fields=(2, 2, 4), frequency=2, invariants=8, decoder_channels=(8, 8, 8), layout="isotropic", frames=2)
    moved = {}
    for group in ("SO(2)", "O(2)"):
        model = sgvae(latent_dim=4, group=group, **sizes)
        model(digits.images[:16])
        codes = [metrics.latent_codes(model, images) for images in (digits.images[:8], digits.images[:8].flip(-1))]
        moved[group] = metrics.angle_between(*codes).max()
    assert moved["O(2)"] < 1e-3 < 0.1 < moved["SO(2)"], moved


@pytest.mark.slow
def test_vectors_of_o2_are_mirrored_with_the_image(digits):
    """And their signs change."""
    sizes = dict(layout="isotropic", invariants=4, frames=2, vectors=3, group="O(2)")
    encoder, images = SteerableEncoder((2, 2, 4), 2, **sizes).double().eval(), digits.images[:4].double()
    with torch.no_grad():
        (_, upright, signs), (_, mirrored, flipped), (_, turned, same) = map(
            encoder.invariants_and_vectors, (images, images.flip(-2), rotate(images, 90))
        )
    assert signs.shape == (4, 3) and signs.abs().min() > 1e-6
    assert torch.allclose(flipped, -signs, atol=1e-8) and torch.allclose(same, signs, atol=1e-8)
    assert upright.imag.abs().min() > 1e-6
    assert torch.allclose(mirrored, upright.conj(), atol=1e-5 * upright.abs().max())
    assert torch.allclose(turned, 1j * upright, atol=1e-5 * upright.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_fast_layers_of_every_group_give_escnns_numbers_and_gradients(digits, monkeypatch, group):
    fast, images = small_gcnn(group), digits.images[:8]
    monkeypatch.setenv("GVAE_STEERABLE", "escnn")
    stock = small_gcnn(group)
    stock.load_state_dict(fast.state_dict())
    outputs = [model(images) for model in (fast, stock)]
    assert torch.allclose(*outputs, atol=1e-5, rtol=1e-5)
    for output in outputs:
        torch.nn.functional.cross_entropy(output, digits.labels[:8]).backward()
    for (name, ours), theirs in zip(fast.named_parameters(), stock.parameters(), strict=True):
        if ours.requires_grad:  # escnn's masks are parameters without
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3), name
    assert torch.allclose(fast.eval()(images), stock.eval()(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", ["O(2)", "C4"])
def test_a_model_of_another_group_is_saved(digits, tmp_path, group):
    model = small_gcnn(group)
    model(digits.images[:16])
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again(digits.images[:4]), model.eval()(digits.images[:4]))


def test_quarter_turns_are_exact_in_training_mode_and_after_steps(digits):
    model = GCNNClassifier(**SMALL, dropout=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(digits.images[:32]), digits.labels[:32]).backward()
        optimiser.step()
    assert metrics.equivariance_error(model.eval(), digits.images[:16], 90) <= 1e-5


def test_an_off_centre_grid_breaks_quarter_turns_and_shows_it(digits):
    # (32 + 2 - 4) is divisible by the first stride, (15 + 2 - 4) is not by the third
    layout = EncoderLayout(32, (2, 1, 2), padding=1)
    encoder = SteerableEncoder(**SMALL, layout=layout, invariants=8).eval()
    errors = metrics.layer_errors(encoder, digits.images[:8], 90)
    assert max(errors[:3]) <= 1e-5 and errors[3] > 0.1


@pytest.mark.slow
def test_the_isotropic_layout_hides_the_frame_and_helps_between_quarter_turns(digits):
    def errors(layout, seed):
        """Of the output for turned digits, and of the last feature fields for a blank image, which shows the frame."""
        torch.manual_seed(seed)
        encoder = SteerableEncoder(**SMALL, invariants=8, dropout=0.0, layout=layout)
        for module in encoder.modules():
            if hasattr(module, "momentum"):
                module.momentum = 1.0  # the statistics of one batch: the features of an untrained network need some
        images = digits.images[:100]
        encoder(images)
        encoder.eval()
        upright, turned = encoder(images), encoder(rotate(images, 45))
        blank = list(encoder.feature_fields(torch.zeros(1, 1, 28, 28)))[-2]
        frame = (metrics.rotate_field(blank, 45).tensor - blank.tensor).norm() / blank.tensor.norm()
        return [((turned - upright).norm() / (upright - upright.mean(0)).norm()).item(), frame.item()]

    with torch.no_grad():
        aligned, isotropic = (
            torch.tensor([errors(layout, seed) for seed in range(3)]).mean(0) for layout in ("aligned", "isotropic")
        )
    assert (isotropic < 0.6 * aligned).all(), (isotropic, aligned)


def test_frames_average_the_invariants_of_turned_copies(digits):
    torch.manual_seed(0)
    arguments = dict(**SMALL, invariants=8, layout="isotropic")
    one, three = (SteerableEncoder(**arguments, frames=frames) for frames in (1, 3))
    three.load_state_dict(one.state_dict())
    one, three = one.eval(), three.eval()
    images = digits.images[:8]
    with torch.no_grad():
        fields = [three.input_field(images, degrees) for degrees in (-30, 0, 30)]
        for block in one.blocks:
            fields = [block(field) for field in fields]
        mean = torch.stack([one.activation(field.tensor).mean((2, 3)) for field in fields]).mean(0)
        assert torch.allclose(three(images), mean, atol=1e-6)
        assert not torch.allclose(three(images), one(images), atol=1e-3)
    assert SteerableEncoder(**arguments, frames=2).frame_angles == [-22.5, 22.5]


def test_more_frames_may_be_read_than_were_trained(digits):
    sizes = dict(layout="isotropic", latent_dim=4, pose=True)
    torch.manual_seed(0)
    one, three = (small_sgvae(**sizes, frames=frames).eval() for frames in (1, 3))
    three.load_state_dict(one.state_dict())
    images = digits.images[:8]
    with torch.no_grad(), reading(one, 3):
        assert torch.equal(one.encode(images).loc, three.encode(images).loc)
        assert torch.equal(one.poses(images)[0], three.poses(images)[0])
    assert one.encoder.frame_angles == [0]
    with pytest.raises(ValueError, match="frames .* at least 1, got 0"), reading(one, 0):
        pass


def test_a_plain_cnn_fails_where_the_gcnn_passes(digits):
    images = digits.images[:16]
    plain = metrics.equivariance_error(CNNClassifier().eval(), images, 90)
    steerable = metrics.equivariance_error(GCNNClassifier(**SMALL).eval(), images, 90)
    assert steerable <= 1e-5 < 0.5 < plain


@pytest.mark.parametrize("build", [small_sgvae, svae], ids=["sgvae", "svae"])
@pytest.mark.parametrize("images", ["digits", "zeros", "ones", "noise"])
def test_concentration_positive_and_everything_finite(digits, build, images):
    x = {
        "digits": digits.images[:8],
        "zeros": torch.zeros(8, 1, 28, 28),
        "ones": torch.ones(8, 1, 28, 28),
        "noise": torch.rand(8, 1, 28, 28),
    }[images]
    model = build(latent_dim=6)
    for train in (True, False):
        model.train(train)
        model.zero_grad()
        posterior = model.encode(x)
        assert posterior.loc.dtype == torch.float32
        assert (posterior.concentration > 0).all() and posterior.concentration.isfinite().all()
        assert torch.allclose(posterior.loc.norm(dim=-1), torch.ones(8), atol=1e-5)
        loss = model.decode_canvas(posterior.rsample()).square().mean() + kl_divergence(posterior, model.prior).mean()
        loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fast_layers_give_escnns_numbers(digits, monkeypatch, layout):
    torch.manual_seed(3)
    fast = small_sgvae(layout=layout).encoder.eval()
    monkeypatch.setenv("GVAE_STEERABLE", "escnn")
    stock = small_sgvae(layout=layout).encoder
    stock.load_state_dict(fast.train().state_dict())
    fast, stock = fast.eval()(digits.images[:8]), stock.eval()(digits.images[:8])
    assert ((fast - stock).norm() / stock.norm()).item() <= 1e-5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: CNNClassifier()(torch.zeros(2, 28, 28)), r"\[N, 1, 28, 28\], got \[2, 28, 28\]"),
        (lambda: small_sgvae().encode(torch.zeros(2, 3, 28, 28)), r"\[N, 1, 28, 28\], got \[2, 3, 28, 28\]"),
        (lambda: svae(4).encode(torch.zeros(2, 1, 32, 32)), r"\[N, 1, 28, 28\], got \[2, 1, 32, 32\]"),
        (lambda: svae(4).decode(torch.zeros(2, 5)), r"codes \[N, 4\], got \[2, 5\]"),
        (lambda: small_sgvae(layout="papper"), "paper, aligned, .*'papper'"),
        (lambda: small_sgvae(latent_dim=1), "latent_dim .* at least 2, got 1"),
        (lambda: small_sgvae(latent_dim=0, gaussian=True), "latent_dim .* at least 1, got 0"),
        (lambda: sgvae(frequency=0), "frequency .* at least 1, got 0"),
        (lambda: sgvae(frequency=2.5), "frequency .* got 2.5"),
        (lambda: sgvae(frames=0), "frames .* at least 1, got 0"),
        (lambda: GCNNClassifier(group="D4"), r"group to be one of SO\(2\), O\(2\), C4, C8; got 'D4'"),
        (lambda: sgvae(group="C4", pose=True), r"group 'SO\(2\)' or 'O\(2\)' with pose, got 'C4'"),
        (lambda: sgvae(invariants=0), "invariants .* at least 1, got 0"),
        (lambda: sgvae(fields=(2, 2)), r"fields to be 3 whole numbers of at least 1, got \(2, 2\)"),
        (lambda: sgvae(fields=(2, 0, 2)), r"fields .* got \(2, 0, 2\)"),
        (lambda: sgvae(dropout=1.0), "dropout .* less than 1, got 1.0"),
        (lambda: sgvae(**SMALL, decoder_channels=(8, 8)), r"decoder_channels .*\(8, 8\)"),
        (lambda: svae(channels=(2, 2)), r"channels to be 3 whole numbers of at least 1, got \(2, 2\)"),
        (lambda: svae(hidden=0), "hidden .* got 0"),
        (lambda: svae(dropout=-0.1), "dropout .* got -0.1"),
        (lambda: CNNClassifier((2, 2)), r"channels .* got \(2, 2\)"),
        (lambda: CNNClassifier(dropout=float("nan")), "dropout .* got nan"),
        (lambda: GCNNClassifier(invariants=-1), "invariants .* got -1"),
        (lambda: EncoderLayout(27, (1, 1, 2)), "grid_size .* at least 28, got 27"),
        (lambda: EncoderLayout(28, ()), r"strides .* got \(\)"),
        (lambda: EncoderLayout(28, (1, 0)), r"strides .* got \(1, 0\)"),
        (lambda: EncoderLayout(28, (1, 1), kernel_size=(3,)), r"kernel_size to be 2 .* got \(3,\)"),
        (lambda: EncoderLayout(28, (1,), padding=-1), "padding .* at least 0, got -1"),
        (lambda: EncoderLayout(28, (1,), pool=0), "pool .* got 0"),
        (
            lambda: GCNNClassifier(layout=EncoderLayout(28, (3, 3, 3))),
            "in block 3 .* kernel 4 on a map of 2 x 2 with padding 0",
        ),
        (
            lambda: GCNNClassifier(layout=EncoderLayout(28, (1, 1, 2), kernel_size=(4, 4, 23))),
            "in block 3 .* kernel 23 on a map of 22 x 22 with padding 0",
        ),
        (lambda: GCNNClassifier((2,), 2, layout=EncoderLayout(28, (4,), pool=8)), "got pool 8 on 7 x 7"),
        (
            lambda: SteerableEncoder(
                (2,), 2, layout=EncoderLayout(29, (1,), kernel_size=29, mask_features=True), invariants=2
            ),
            "at least 2 x 2 for a disc around them, got 1 x 1",
        ),
    ],
)
def test_bad_input_says_what_was_expected_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


MODELS = {
    "sgvae": lambda: small_sgvae(latent_dim=4),
    "frames": lambda: small_sgvae(latent_dim=4, layout="isotropic", frames=2),
    "gaussian": lambda: small_sgvae(latent_dim=4, gaussian=True),
    "svae": lambda: svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)),
    "cnn": lambda: CNNClassifier((2, 2, 4)),
    "gcnn": lambda: GCNNClassifier(**SMALL),
    "encoder": lambda: small_sgvae().encoder,
    "plain encoder": lambda: ConvolutionalEncoder((2, 2, 4)),
}


def _output(model, images):
    """A tensor that is the same at every call in eval mode."""
    return model.encode(images).mode if hasattr(model, "encode") else model(images)


# --- the border -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: (255 * x).byte(), r"floating-point values in \[0, 1\], got torch.uint8; divide bytes by 255"),
        (lambda x: 255 * x, r"finite values in \[0, 1\], got values from 0 to 255"),
        (lambda x: inputs.MNIST_FORMAT.standardised(x), r"got values from -0.42\d* to 2.8\d*"),
        (lambda x: -x, "got values from -1 to"),
        (lambda x: x.index_fill(0, torch.tensor(2), math.nan), "got values from nan to nan"),
        (lambda x: x.index_fill(0, torch.tensor(2), math.inf), "got values from 0 to inf"),
        (lambda x: x.numpy(), "as a torch.Tensor, got ndarray"),
        (lambda x: x[0], r"\[N, 1, 28, 28\], got \[1, 28, 28\]"),
    ],
)
def test_images_that_are_none_are_refused_at_the_border(digits, name, change, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name]().eval()(change(digits.images[:4]))


def test_a_target_is_checked_as_an_input_is(digits):
    with pytest.raises(ValueError, match="got values from 0 to 255"):
        MODELS["svae"]().canvas(255 * digits.images[:4])


@pytest.mark.parametrize("name", MODELS)
def test_images_of_any_precision_are_taken(digits, name):
    torch.manual_seed(0)
    model, images = MODELS[name]().eval(), digits.images[:4]
    with torch.no_grad():
        expected = _output(model, images)
        assert torch.equal(_output(model, images.double()), expected)  # numpy's default
        rounded = (images + 5e-4 * torch.rand_like(images)).half()  # up to 1.001, from an interpolation
        assert torch.allclose(_output(model, rounded), expected, atol=0.05)
        double = copy.deepcopy(model).double()
        assert _output(double, images).dtype == torch.float64
        assert torch.allclose(_output(double, images).float(), expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_no_images_give_no_outputs_and_are_refused_in_train_mode(digits, name):
    model, none = MODELS[name](), digits.images[:0]
    with pytest.raises(ValueError, match="at least one image in train mode, got none"):
        model(none)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    expected = _output(model.eval(), digits.images[:2])
    assert _output(model, none).shape == (0, *expected.shape[1:])
    if hasattr(model, "decode"):
        assert model(none)[0].shape == (0, 1, 28, 28)


def test_gradients_and_functional_transforms_pass_the_border(digits):
    model, images = MODELS["svae"]().eval(), digits.images[:3]

    def first_mean(image):
        return model.encode(image[None]).mean[0]

    by_hand = torch.stack([torch.autograd.functional.jacobian(first_mean, image) for image in images])
    assert torch.allclose(torch.func.vmap(torch.func.jacrev(first_mean))(images), by_hand, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_the_border_is_no_obstacle_to_export(digits, strict):
    model, images = MODELS["cnn"]().eval(), digits.images[:3]
    program = torch.export.export(model, (images,), strict=strict)
    assert torch.allclose(program.module()(images), model(images), atol=1e-5)


# --- dtype ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgvae", "frames", "gaussian", "svae"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_prior_samples_and_decoder_follow_the_model(digits, name, dtype):
    model = MODELS[name]().to(dtype).eval()
    samples = model.prior.sample((4,))
    assert samples.dtype == model.decode(samples).dtype == dtype
    reconstruction, posterior, z = model(digits.images[:4])
    assert reconstruction.dtype == dtype and reconstruction.isfinite().all()
    if dtype == torch.float64:
        assert z.dtype == dtype
    assert kl_divergence(posterior, model.prior).isfinite().all()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_saved_model_is_the_same_model(digits, tmp_path, name, dtype, training):
    model = MODELS[name]().to(dtype)
    model(digits.images[:16])  # statistics that are not the initial ones
    modes = [module.training for module in model.train(training).modules()]
    save_model(model, tmp_path / "model.safetensors")
    assert [module.training for module in model.modules()] == modes
    again = load_model(str(tmp_path / "model.safetensors"))
    assert type(again) is type(model) and again.built_by[0] == model.built_by[0]
    assert not any(module.training for module in again.modules())
    expected = _output(model.eval(), digits.images[:4])
    assert expected.dtype == dtype and torch.equal(_output(again, digits.images[:4]), expected)


def test_a_layout_of_ones_own_is_saved(digits, tmp_path):
    model = small_sgvae(layout=EncoderLayout(29, (2, 1, 1), kernel_size=(5, 3, 3), mask_input=True)).eval()
    save_model(model, tmp_path / "model.safetensors")
    assert torch.equal(
        _output(load_model(tmp_path / "model.safetensors"), digits.images[:4]), _output(model, digits.images[:4])
    )


@pytest.mark.slow
@pytest.mark.parametrize("build", [sgvae, svae, CNNClassifier])
def test_a_format_of_ones_own_is_saved(tmp_path, build):
    form = ImageFormat.measured(own_images(ImageFormat(48, channels=3), 20))
    model = build(images=form).eval()
    assert not [name for name in model.state_dict() if "image" in name or "mean" == name]
    save_model(model, tmp_path / "model.safetensors")
    again, x = load_model(tmp_path / "model.safetensors"), own_images(form)
    assert again.images == form and torch.equal(_output(again, x), _output(model, x))


def test_only_models_of_the_package_are_saved(tmp_path):
    class Mine(CNNClassifier):
        pass

    for model, name in ((torch.nn.Linear(2, 2), "Linear"), (Mine((2, 2, 2)), "Mine")):
        with pytest.raises(ValueError, match=f"expected a model built by CNNClassifier, .*; got a {name}"):
            save_model(model, tmp_path / "model.safetensors")
    assert not any(tmp_path.iterdir())


def test_a_file_that_holds_no_model_says_what_it_is(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_model(path)
    save_model(MODELS["cnn"](), path)
    tensors, metadata = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # they were mapped from the file
    whole = path.read_bytes()
    for broken in (b"", b"no tensors", whole[:-100], whole[:50]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="model.safetensors: expected a safetensors file"):
            load_model(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_model(path)
    for changed, message in (
        ({"spec": {}}, r"written by gvae_core.save_model, found a file with \['spec'\]"),
        (metadata | {"model": "os.system"}, "written by gvae_core.save_model"),
        (metadata | {"format": 99}, "in format 1, found format 99 .written with"),
        (metadata | {"arguments": {"channels": [2, 2, 5]}}, "the weights of a CNNClassifier, found others"),
        (metadata | {"arguments": {"chanels": [2, 2, 4]}}, "expected arguments of CNNClassifier, found others"),
    ):
        save_tensors(path, tensors, changed)
        with pytest.raises(ValueError, match=message):
            load_model(path)


def test_weights_that_are_overwritten_are_refused(tmp_path):
    save_model(CNNClassifier((2, 2, 4)), path := tmp_path / "model.safetensors")
    content = bytearray(path.read_bytes())
    content[-16:] = b"\xff" * 16  # as after a fault of the disk: the header is whole
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: expected finite weights, found others in .*damaged"):
        load_model(path)


def test_a_model_is_saved_as_it_was_built(tmp_path):
    channels = [2, 2, 4]
    model = CNNClassifier(channels)
    channels[0] = 3
    save_model(model, path := tmp_path / "model.safetensors")
    load_model(path)


def test_a_path_that_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    with pytest.raises(ValueError, match="expected a path in UTF-8, got .*caf"):
        save_model(CNNClassifier((2, 2, 4)), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_last_layer_is_a_transposed_convolution(memory_format):
    ours = svae(3, channels=(2, 2, 4), decoder_channels=(4, 4, 5)).decoder[-1].double()
    stock = torch.nn.ConvTranspose2d(5, 1, 4, stride=2).double()
    stock.load_state_dict(ours.state_dict())
    for count in (0, 1, 7):
        values = torch.randn(count, 5, 15, 15).double().to(memory_format=memory_format).requires_grad_()
        found, expected = (
            [layer(values), *torch.autograd.grad(layer(values).square().sum(), [values, *layer.parameters()])]
            for layer in (ours, stock)
        )
        torch.testing.assert_close(found, expected)
