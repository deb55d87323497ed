# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Galaxies, tissue, and your own images
#
# **The question:** you have a folder of images in which nothing is upright, and no labels. What is alike, whichever way
# it lies? **The answer:** a few minutes of training give every image a *code*, a point on a sphere that hardly sees the
# image's angle, and, apart from it, the angle. Codes that lie close together belong to images that look alike.
#
# **You will see** galaxies of the Hubble Deep Field: turned back by their angles, found by their like, sorted on one page. Then a
# section of tissue, coloured by what the codes say; turn the section, and the colours turn along. Both pictures come
# with scikit-image, nothing is downloaded. Give the parameter `folder`, and the notebook shows your images instead:
#
#     uv run papermill notebooks/08_no_upright.ipynb mine.ipynb -p folder /home/me/cells
#
# A small model is trained here, on shapes alone. With `-p model cells.safetensors` that of `gvae fit` is read instead.

# %% tags=["parameters"]
profile = "quick"  # smoke, quick or paper
seed = 0
folder = ""  # of your own images, or an .npy or .npz file; they are shown instead
model = ""  # a file by `gvae fit`, which is read instead of training; size and colour are then its own
size = 32  # pixels of a side, 28 to 128; larger shows more and takes longer
colour = False  # whether the model sees colours, too, or shapes alone

# %%
import numpy as np
import torch
from sklearn.cluster import KMeans

from gvae_core import RotationAgnosticEmbedding, load_images, rotate
from gvae_core.explorer import RotationExplorer
from gvae_core.files import outputs_directory
from gvae_core.metrics import neighbour_accuracy
from gvae_core.models import ImageFormat
from gvae_core.report import figures, live, profiles, sheets, specimens
from gvae_core.report.parameters import check_parameters
from gvae_core.rotation import in_disc, random_angles

check_parameters(profile, "mnist5k", seed, size=(size, 28, 128))
fitted = RotationAgnosticEmbedding.load(model) if model else None
if fitted:
    size, colour = fitted.model_.images.size, fitted.model_.images.channels > 1
stamp = dict(profile=profile, source="own images" if folder else "Hubble Deep Field")

# %% [markdown]
# ## The images
#
# A galaxy is what stands out of the dark by five times its noise. Each is cut out, put in the middle and brought to one
# size, so that neither place nor size tells them apart. Of your own images each is taken whole.
#
# *Where in the Hubble Deep Field the galaxies were found, with four queries; images as they came.*

# %%
if folder:
    loaded = load_images(folder, size=size, channels=3, scale=fitted and fitted.scale_)
    images = loaded.images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    queries = {loaded.class_of(i) or f"image {i}": i for i in order[:6].sort().values.tolist()}
else:
    galaxies = specimens.hubble_galaxies(size)
    images, order = galaxies.images, torch.arange(len(galaxies.images))
    places = {"edge-on": (580, 405), "face-on": (124, 400), "elliptical": (418, 402), "needle": (404, 271)}
    queries = {name: galaxies.nearest(*place) for name, place in places.items()}
    figure = sheets.found_in(galaxies.field, galaxies.centres, galaxies.half_sides, queries)
    figures.save(figure, "galaxies", **stamp)
seen = images if colour else images.mean(1, keepdim=True)
print(f"{len(images):,} images of {size} pixels")

# %%
figures.save(figures.contact_sheets({"as they came": images[order[:200]]}, columns=25), "own_images", **stamp);

# %% [markdown]
# ## Train
#
# The images are all that it gets: no labels, no upright, no copies turned by hand. It is saved, and can be read another
# day for other images: `RotationAgnosticEmbedding.load`, or the parameter `model`.

# %%
embedding = fitted or RotationAgnosticEmbedding(**profiles.own_images(profile, seed, len(images))).fit(seen)
if not fitted:
    embedding.save(outputs_directory() / "embeddings" / f"{profile}.safetensors")
codes = embedding.transform(seen)
angles, spread = embedding.poses(seen)

# %% [markdown]
# ## What the model keeps of an image
#
# It draws an image from its code in one orientation that all share, and turns the drawing by the angle. Turned back by
# this angle, the images themselves should lie the same way: the *canonical view*. After a short training they do so only
# roughly. Where an image looks alike after a turn, like a round galaxy, any angle will do.
#
# *Images as they came, what the model draws of them, and turned back by the angle above them.*

# %%
form = ImageFormat.measured(images[:2000])
upright = form.turned(images, torch.from_numpy(-angles)).clamp(0, 1)
others = [i for i in order.tolist() if i not in queries.values()]
shown = torch.tensor([*queries.values(), *others[: 14 - len(queries)]])
rows = {
    "as it came": images[shown],
    "drawn by\nthe model": embedding.reconstruct(seen[shown]),
    "canonical\nview": upright[shown],
}
figure = figures.image_rows(rows, [f"{angle:.0f}°" for angle in angles[shown]])
figures.save(figure, "own_reconstructions", **stamp);

# %% [markdown]
# ## Show me more like this
#
# The images whose codes are nearest to that of a query, whatever their angle.
#
# *The queries, framed, and beside each the twelve nearest images.*

# %%
rows = {name: images[np.argsort(-codes @ codes[index])[:13]] for name, index in queries.items()}
figures.save(sheets.nearest(rows), "nearest", **stamp);

# %% [markdown]
# ## Kinds, found without labels
#
# Clusters of the codes by k-means, in each the images nearest to its middle: as they came, and in their canonical view.
#
# *Six kinds, found without labels: as they came, then in their canonical view.*

# %%
kinds = KMeans(6, n_init=4, random_state=seed).fit(codes)
in_order = kinds.transform(codes).argsort(0).T
members = [[i for i in near if kinds.labels_[i] == kind][:40] for kind, near in enumerate(in_order)]
names = [f"{letter}: {count} images" for letter, count in zip("ABCDEF", np.bincount(kinds.labels_))]
as_they_came = {name: images[chosen] for name, chosen in zip(names, members)}
same_way_up = {name: upright[chosen] for name, chosen in zip(names, members)}
figures.save(figures.contact_sheets(as_they_came, columns=5), "clusters", **stamp)
figures.save(figures.contact_sheets(same_way_up, columns=5), "clusters_canonical", **stamp);

# %% [markdown]
# Where your images lie in folders by class, or come with labels, this says how often the five nearest of half of the
# images name the class of one of the other half; then after those have been turned once more. The codes were learned
# without labels, from all images.

# %%
if folder and loaded.labels is not None:
    known, asked = order.chunk(2)
    again = form.turned(images, random_angles(len(images), seed)).clamp(0, 1)
    codes_again = embedding.transform(again if colour else again.mean(1, keepdim=True))
    by_what = {"codes": (codes, codes_again), "pixels": (form.turnable(images), form.turnable(again))}
    for name, (before, after) in by_what.items():
        before, after = (torch.as_tensor(numbers).flatten(1) for numbers in (before, after))
        right = (
            neighbour_accuracy(asking[asked], loaded.labels[asked], before[known], loaded.labels[known])
            for asking in (before, after)
        )
        print("{}: {:.1%} named right, {:.1%} after another turn".format(name, *right))

# %% [markdown]
# ## All on one page
#
# The codes in the plane, by t-SNE, then moved to the places of a square grid: whatever lies close together looks alike.
#
# *The images in the plane, those with similar codes close together.*

# %%
figures.save(sheets.atlas(images[order[:2025]], codes[order[:2025]]), "atlas", **stamp);

# %% [markdown]
# ## A section of tissue
#
# Thousands of overlapping patches of one section of a colon, in which one protein is stained brown. Codes, clusters, and
# every patch's cluster as a colour in its place. Then the section is turned by 37°, cut into patches anew and coloured
# by the same clusters: the colours turn along.
#
# *The section, the same coloured by cluster, and coloured anew after a turn by 37°.*

# %%
if not folder:
    side, step = 32, {"smoke": 32, "quick": 5, "paper": 4}[profile]  # pixels of a patch, and from one to the next
    section = specimens.tissue()
    turned = rotate(section[None], 37)[0]
    known = specimens.patches(section, side, max(step, 8)).flatten(0, 1)
    of_tissue = RotationAgnosticEmbedding(**profiles.own_images(profile, seed, len(known))).fit(known)
    kmeans = KMeans(4, n_init=4, random_state=seed).fit(of_tissue.transform(known))

    def clusters_of(picture):
        grid = specimens.patches(picture, side, step)
        found = kmeans.predict(of_tissue.transform(grid.flatten(0, 1)))
        return torch.from_numpy(found).long().view(grid.shape[:2])

    before, after = clusters_of(section), clusters_of(turned)
    disc = in_disc(len(before), (section.shape[1] / 2 - side / 2) / step)
    along = specimens.turned_back(before, -37)  # the same map turned, without a look at the section
    shares = [
        (specimens.turned_back(labels, 37) == before)[disc].double().mean().item() for labels in (after, along)
    ]
    content = {
        "the section": section,
        "coloured by cluster": sheets.painted(section, before, step),
        "turned by 37°, coloured anew": sheets.painted(turned, torch.where(disc, after, -1), step),
    }
    figures.save(figures.pictures(content), "tissue", profile=profile, source="immunohistochemistry")
    print(f"{shares[0]:.1%} of {disc.sum()} places are in the same cluster after the turn")
    print(f"{shares[1]:.1%} would be if the codes did not move at all: the rest is lost between the places")

# %% [markdown]
# ## Turn one yourself
#
# The input above, below it what the model draws, which turns along, and the canonical view, which stands still. The dial
# shows the angle that the model finds. This needs a running kernel; the saved page does not.

# %%
explorer = RotationExplorer({"your model": embedding.model_}, seen)
explorer

# %%
page = live.save(explorer, "explorer_own_images", profile=profile)
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB, works without a kernel")

# %% [markdown]
# ## What it shows, and what to mind
#
# - Most of the nearest to an edge-on galaxy are long and thin, at other angles; most of the nearest to a spiral seen from
#   above are round. In grey, that is. With `colour=True` the colour takes part, and often decides.
# - A short training draws blurs. The search needs no sharp drawings; `profile="paper"` trains eight times as long.
# - An edge-on galaxy looks alike after half a turn, and a round one after any, so their angle is not one number. The
#   second value of `embedding.poses`, the spread, says how sure an angle is: 90 % of the probability lies within so many
#   degrees to either side, so above 90° there is no angle to speak of.
# - Mirror images are different things for this model: an S and a Z are not alike. With
#   `RotationAgnosticEmbedding(reflections=True)` they are, and `embedding.handedness` says which one it is.
