# %% [markdown]
# # Assignment 1: A face is a vector
#
# *Read distances, areas and coefficients off faces that are nothing but numbers.*
#
# **You need** chapters 1 and 2 of the book, and arrays in PyTorch: indexing, broadcasting, sums over an axis.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** about 90 minutes. All cells together run in 10 seconds on a CPU.
#
# The test below a task tells you whether you are on the right track. It checks a few cases; grading checks more, with
# other numbers. Where a task says *your own code*, an answer that calls the package's function for it does not count.

# %% locked="setup"
import matplotlib.pyplot as plt
import torch

from twodasl_lite.course import checks
from twodasl_lite.faces import load_face_model
from twodasl_lite.viz import shaded_mesh

model = load_face_model()
generator = torch.Generator().manual_seed(1)
shape, expression = model.sample(3, generator=generator)  # (3, Ks), (3, Ke)
faces = model.decode(shape, expression)  # (3, V, 3), millimetres
triangles = model.triangles  # (T, 3), numbers of vertices
print(f"{len(faces)} faces of {model.num_vertices:,} vertices and {len(triangles):,} triangles")

figure, panels = plt.subplots(1, 3, figsize=(7, 2.8), layout="constrained")
for axes, face in zip(panels, faces):
    shaded_mesh(axes, face, triangles, pixels=300)

# %% [markdown]
# These three people do not exist. You will measure them.
#
# ### Task 1.1 · The width of the eyes
#
# Landmarks 36 and 45 (counted from 0) are the outer corners of the eyes. `model.landmarks` holds the index of each
# landmark's *vertex*. Return the distance between the two corners in millimetres, for each face of a batch.


# %% answer="eye-distance"
def eye_distance(faces, landmarks):
    """Distance between landmarks 36 and 45.

    faces: (B, V, 3) in mm. landmarks: (68,) vertex numbers. Returns (B,) in mm.
    """
    ### BEGIN SOLUTION
    corners = faces[:, landmarks[[36, 45]]]  # (B, 2, 3)
    return (corners[:, 0] - corners[:, 1]).norm(dim=-1)
    ### END SOLUTION


# %% test="eye-distance" points=1
with checks.from_scratch():
    found = eye_distance(faces, model.landmarks)
checks.tensor("eye_distance", found, (3,))
for apart in found.tolist():
    assert 60 < apart < 130, f"Eyes {apart:.0f} mm apart? Did you look up the vertices of the landmarks?"
print("✓ these eyes are as far apart as eyes are")

# %% test="eye-distance-hidden" points=1
# Hidden tests: other faces, and a mesh with known distances.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
some, where = 40 * torch.randn(4, 500, 3, generator=g), torch.randperm(500, generator=g)[:68]
expected = (some[:, where[36]] - some[:, where[45]]).square().sum(-1).sqrt()
checks.close("eye_distance", eye_distance(some, where), expected, unit="mm")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.2 · The decoder
#
# *Your own code.* Write the decoder of the linear model, $\mathbf S = \bar{\mathbf S} + \sum_k \alpha_k \mathbf A_k + \sum_k
# \beta_k \mathbf E_k$, for a whole batch. No loop over faces is needed: `torch.einsum`, or `@` and `flatten`.


# %% answer="decode"
def decode_faces(mean, A, E, shape, expression):
    """Faces from coefficients.

    mean: (V, 3). A: (V, 3, Ks). E: (V, 3, Ke). shape: (B, Ks). expression: (B, Ke). Returns (B, V, 3).
    """
    ### BEGIN SOLUTION
    moved = torch.einsum("vck,bk->bvc", A, shape) + torch.einsum("vck,bk->bvc", E, expression)
    return mean + moved
    ### END SOLUTION


# %% test="decode" points=1
A, E = model.shape_basis, model.expression_basis
with checks.from_scratch():
    found = decode_faces(model.mean, A, E, shape, expression)
checks.close("decode_faces", found, faces, unit="mm", tolerance=0.01)
print("✓ to a hundredth of a millimetre")

# %% test="decode-hidden" points=2
# Hidden tests: a model of another size, a single face, and an empty batch.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
for size in (4, 1, 0):
    some = [torch.randn(*s, generator=g) for s in ((20, 3), (20, 3, 5), (20, 3, 2), (size, 5), (size, 2))]
    m, a, e, s, x = some
    expected = m + (a[None] * s[:, None, None]).sum(-1) + (e[None] * x[:, None, None]).sum(-1)
    with checks.from_scratch():
        found = decode_faces(*some)
    checks.close("decode_faces", found, expected, unit="mm")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.3 · How much skin
#
# The length of the cross product $(\mathbf b - \mathbf a) \times (\mathbf c - \mathbf a)$ of a triangle's edges is twice
# its area. Return the area of the whole surface in **square centimetres**. The vertices are in millimetres.


# %% answer="area"
def surface_area(vertices, triangles):
    """Area of a mesh.

    vertices: (V, 3) in mm. triangles: (T, 3). Returns one number (a tensor without axes) in cm².
    """
    ### BEGIN SOLUTION
    a, b, c = vertices[triangles].unbind(dim=1)  # (T, 3) each
    twice = torch.linalg.cross(b - a, c - a).norm(dim=-1)  # (T,) mm²
    return twice.sum() / 2 / 100
    ### END SOLUTION


# %% test="area" points=1
square = torch.tensor([[0.0, 0, 0], [20, 0, 0], [20, 20, 0], [0, 20, 0]])  # 2 cm by 2 cm
found = surface_area(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))
checks.close("area of a square", found, torch.tensor(4.0), unit="cm²")
print(f"✓ the first head has {surface_area(faces[0], triangles):,.0f} cm² of surface, neck included")

# %% test="area-hidden" points=2
# Hidden tests: triangles in space, some of them with reversed orientation.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
v, t = 30 * torch.randn(60, 3, generator=g), torch.randint(0, 60, (90, 3), generator=g)
t[::2] = t[::2].flip(1)
sides = (v[t] - v[t].roll(1, dims=1)).double().norm(dim=-1)  # Heron's formula: no cross product
half = sides.sum(-1) / 2
expected = (half * (half - sides[:, 0]) * (half - sides[:, 1]) * (half - sides[:, 2])).clamp(min=0).sqrt().sum() / 100
checks.close("surface_area", surface_area(v, t), expected, unit="cm²")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.4 · How different are two faces?
#
# The root mean square distance: square the distance that each vertex moves, take the mean over the vertices, then the
# square root. The result is again in millimetres.


# %% answer="rms"
def rms_distance(first, second):
    """Root mean square distance of corresponding vertices.

    first, second: (B, V, 3) in mm. Returns (B,) in mm.
    """
    ### BEGIN SOLUTION
    squared = (first - second).square().sum(dim=-1)  # (B, V)
    return squared.mean(dim=-1).sqrt()
    ### END SOLUTION


# %% test="rms" points=1
moved = faces + torch.tensor([3.0, 4.0, 0.0])  # every vertex by 5 mm
checks.close("rms_distance", rms_distance(faces, moved), torch.full((3,), 5.0), unit="mm")
print("✓ 3 to the right and 4 up is 5 mm")

# %% test="rms-hidden" points=2
# Hidden tests: distances that differ from vertex to vertex.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
first, second = 50 * torch.randn(2, 3, 200, 3, generator=g)
expected = torch.stack([((a - b) ** 2).sum() / 200 for a, b in zip(first, second)]) ** 0.5
checks.close("rms_distance", rms_distance(first, second), expected, unit="mm")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.5 · The same surface with other vertex numbers
#
# `order` is a permutation: the new vertex `i` is the old vertex `order[i]`. Return the vertices in the new order, and
# triangles that describe *exactly the same surface*.


# %% answer="renumber"
def renumber(vertices, triangles, order):
    """The same mesh with its vertices in another order.

    vertices: (V, 3). triangles: (T, 3). order: (V,). Returns new vertices (V, 3) and new triangles (T, 3).
    """
    ### BEGIN SOLUTION
    return vertices[order], torch.argsort(order)[triangles]
    ### END SOLUTION


# %% test="renumber" points=1
order = torch.randperm(model.num_vertices, generator=generator)
new_vertices, new_triangles = renumber(faces[0], triangles, order)
checks.close("new vertices", new_vertices, faces[0][order], unit="mm")
checks.tensor("new triangles", new_triangles, tuple(triangles.shape))
off = (new_vertices[new_triangles] - faces[0][triangles]).norm(dim=-1).max()
assert off < 1e-4, f"A corner of a triangle has moved by {off:.0f} mm. Which way round does `order` go?"
print("✓ nobody could tell from a picture")

# %% test="renumber-hidden" points=2
# Hidden tests: other meshes.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
for size in (50, 7):
    v, t = torch.randn(size, 3, generator=g), torch.randint(0, size, (30, 3), generator=g)
    order = torch.randperm(size, generator=g)
    w, u = renumber(v, t, order)
    checks.close("new vertices", w, v[order])
    checks.tensor("new triangles", u, (30, 3))
    assert torch.equal(w[u], v[t]), "The triangles describe another surface."
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.6 · The encoder
#
# The decoder in reverse: given a face without expression, find its shape coefficients by linear least squares
# (`torch.linalg.lstsq`). A face has $3V$ numbers, and there are $K_s$ unknowns.


# %% answer="encode"
def encode_face(face, mean, A):
    """Shape coefficients of a face.

    face, mean: (V, 3). A: (V, 3, Ks). Returns (Ks,).
    """
    ### BEGIN SOLUTION
    offset = (face - mean).flatten()  # (3V,)
    return torch.linalg.lstsq(A.flatten(0, 1), offset[:, None]).solution[:, 0]
    ### END SOLUTION


# %% test="encode" points=1
mean, A = model.mean, model.shape_basis
with checks.from_scratch():
    found = encode_face(model.mean.clone(), mean, A)
checks.tensor("encode_face", found, (model.num_shape,))
assert found.abs().max() < 1e-3, "All coefficients of the mean face are zero. What has to be subtracted first?"
print("✓ the mean face is at the origin")

# %% test="encode-hidden" points=2
# Hidden tests: the coefficients of random faces, with and without noise.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
wanted, _ = model.sample(1, generator=g, expression=False)
face = model.decode(wanted)[0]
checks.close("encode_face", encode_face(face, model.mean, model.shape_basis), wanted[0], tolerance=0.01)
noisy = face + 0.5 * torch.randn(face.shape, generator=g)
again = encode_face(noisy, model.mean, model.shape_basis)
A = model.shape_basis.flatten(0, 1).double()
best = torch.linalg.solve(A.T @ A, A.T @ (noisy - model.mean).double().flatten())
checks.close("encode_face, noisy", again, best, tolerance=0.01)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 1.7 · In your own words
#
# A friend has 3D scans of two people, each with 10,000 points in no particular order. "The average of two faces is a
# face," says the friend, adds the two arrays and divides by two. What will the picture show, and what has to be done
# first? Three or four sentences.

# %% [markdown] answer="correspondence" points=3
# ### BEGIN SOLUTION
# Row 17 of one scan may be the tip of the nose and row 17 of the other an ear lobe; their average is a point in the air
# between them. The picture shows a cloud of points, not a face. The scans must be registered first: a template mesh is
# deformed to fit each scan, so that vertex i is the same anatomical point in both. In dense correspondence the average
# of each vertex lies halfway between two corresponding points, and the triangles of the template fit it.
#
# **Rubric.** 1 point: says that the rows do not correspond. 1 point: says what the picture shows (a cloud, not a
# surface). 1 point: names registration to a common template, or correspondence by anatomical points. Sorting the
# points, or aligning position and rotation only (Procrustes), does not earn the third point.
# ### END SOLUTION
