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
# # 2 · CNN against G-CNN, trained upright, tested rotated
#
# **The question:** can a classifier that was trained on upright digits read turned ones?
# **The answer:** a steerable network (G-CNN) reads most of them, a plain CNN fewer than half.
#
# This is Table 1 of the 2022 paper. Both classifiers see upright digits only; the test digits are turned by random
# angles. **You will see** the paper's table beside ours, the training curves, and the accuracy over the angle.
#
# > The 2022 paper: cross-entropy on *softmax outputs*, a second softmax inside the loss. Its minimum is
# > $-\log(e/(e+9)) = 1.4612$, which is how it was recognised: 1.471 is just above. We train with it, and beside
# > it, as a variant in rows of its own, with plain cross-entropy.

# %% tags=["parameters"]
profile = "quick"  # smoke, quick or paper
seed = 0
source = "auto"  # auto, mnist or mnist5k

# %%
from IPython.display import Markdown

from gvae_core import metrics, run
from gvae_core.files import ROOT
from gvae_core.mnist import load_splits
from gvae_core.report import figures, profiles, results_page, tables
from gvae_core.report.parameters import check_parameters
from gvae_core.runs.measures import kinds_of_input

source = check_parameters(profile, source, seed)
stamp = dict(profile=profile, source=source)
specs = profiles.table1(profile, source, seed)

# %% [markdown]
# ## Train, or load what was trained before

# %%
results = [run(spec) for spec in specs]
Markdown(tables.runs(results))

# %% [markdown]
# ## Table 1

# %%
Markdown(tables.save(tables.table1(results), "table1", **stamp))

# %% [markdown]
# *Training and validation loss, epoch by epoch.*

# %%
figure = figures.training_curves(results[:2], "paper_loss", "cross-entropy of softmax outputs")
figures.save(figure, "table1_training", **stamp);

# %% [markdown]
# ## Accuracy over the angle
#
# *Accuracy over the angle of the test digits: the G-CNN's hardly falls, the CNN's does.*

# %%
figure = figures.accuracy_by_angle(results)
figures.save(figure, "accuracy_by_angle", **stamp)
Markdown(tables.accuracy_over_the_turn(results))

# %% [markdown]
# ## At the papers' size
#
# What `gvae run table1` has computed so far: 30,000 digits, the paper's architecture and schedule, for some several seeds
# (mean ± standard deviation), and G-CNNs of ours on other grids beside it. Nothing is trained here. "12 of 50" under
# epochs is a run that was stopped there and goes on when the command is run again.
#
# *The same at the papers' size: accuracy over the angle of the test digits.*

# %%
full_size = profiles.full_size_results("table1")
Markdown(tables.save(tables.table1(full_size), "table1_full_size", profile="paper", source="mnist"))

# %%
figure = figures.accuracy_by_angle(full_size)
figures.save(figure, "accuracy_by_angle_full_size", profile="paper", source="mnist")
Markdown(tables.accuracy_over_the_turn(full_size))

# %% [markdown]
# ## Which group?
#
# C4 and C8 turn the plane by quarters and by eighths (T. Cohen, M. Welling, *Group equivariant convolutional networks*,
# 2016), SO(2) by any angle, and O(2) mirrors it as well (M. Weiler, G. Cesa, *General E(2)-equivariant steerable CNNs*,
# 2019). G-CNNs of about as many parameters, what `gvae run groups` has computed on few digits; nothing is trained here. One
# training each, 500 test digits: differences below three points mean nothing.
# The network with O(2) reads mirrored digits as it reads the others, and cannot tell a figure from its mirror image.

# %%
groups = results_page.committed(ROOT / "outputs" / "quick", "quick", profiles.groups)
Markdown(tables.save(tables.groups(groups), "groups", profile="quick", source="mnist5k"))

# %% [markdown]
# ## What the two networks say about the same digits
#
# *Turned test digits, and what each network reads.*

# %%
test = load_splits(source).test
turned = kinds_of_input(test)["rotated"][0][:12]
labels = [f"true {label}" for label in test.labels[:12]]
for result in results[:2]:
    if result.checkpoint.is_file():  # committed numbers may come without their weights
        said = metrics.logits(result.load_model(), turned).argmax(-1)
        labels = [f"{label}\n{result.spec.name} {digit}" for label, digit in zip(labels, said)]
figure = figures.image_rows({"turned": turned}, labels)
figures.save(figure, "table1_examples", **stamp);

# %% [markdown]
# ## What it shows, and where it differs from the paper
#
# - The G-CNN keeps most of its accuracy at every angle: the tables under the figures say how much, most on the isotropic
#   grid, least with the paper's kernels (the pixel grid of notebook 01). The CNN's falls towards chance, with a bump at
#   180° where 0, 1 and 8 look alike.
# - At full size the CNN's losses are near the paper's, with the second softmax; the G-CNN's are higher. With the
#   second softmax a wrong but certain answer has almost no gradient, so a short training needs a high learning rate.
# - `quick` is not the paper's training: the first table says how many digits and epochs, and the G-CNN has the
#   `isotropic` layout of notebook 01. The paper's kernel 4 has a single ring of filters, and learns far more slowly.
# - At full size, kernels 4, 4, 4 stay far below the paper's accuracy after its 50 epochs; with kernel 9 in the *first*
#   layer and all else the same the G-CNN learns faster and comes to what the paper has; its grid is off-centre, so it loses
#   three points at a half turn. With frequency 5
#   the number of parameters hardly depends on the first kernel, so the paper's table does not tell them apart.
