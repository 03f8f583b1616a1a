"""The renderer against exact geometry and a float64 ray caster."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from cliff_ms.visual import render
from tests.paths import ZOO

BODY = ZOO / "body" / "neutral.npz"


def sphere(centre, radius=1.0, subdivisions=3):
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.float32(ball.vertices + np.asarray(centre)), np.asarray(ball.faces)


def quad(corners):
    """Two triangles over four corners given anticlockwise as the camera sees them (y down)."""
    return np.float32(corners), np.array([[0, 1, 2], [0, 2, 3]])


def ray_cast(vertices, faces, focal_length, img_hw, centre):
    """Nearest hit per pixel in float64 (Moeller-Trumbore): face (-1 for none), barycentrics, depth, doubt."""
    v = np.float64(vertices)[faces]
    e1, e2 = v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]
    rows, columns = np.mgrid[: img_hw[0], : img_hw[1]] + 0.5
    rays = np.stack([(columns - centre[0]) / focal_length, (rows - centre[1]) / focal_length, np.ones(img_hw)], -1)
    rays = rays.reshape(-1, 1, 3)
    p = np.cross(rays, e2)
    det = (p * e1).sum(-1)
    u = (p * -v[:, 0]).sum(-1) / det
    q = np.cross(-v[:, 0], e1)
    w = (rays * q).sum(-1) / det
    depth = (e2 * q).sum(-1) / det
    inside = np.minimum(np.minimum(u, w), 1 - u - w)
    depth = np.where((inside >= 0) & (det > 0) & (v[..., 2] > render.NEAR).all(1), depth, np.inf)
    best = depth.argmin(1)
    pick = np.arange(len(best)), best
    order = np.sort(depth, axis=1)
    with np.errstate(invalid="ignore"):
        doubt = (np.abs(inside).min(1) < 1e-3) | (order[:, 1] - order[:, 0] < 1e-4)
    face = np.where(np.isfinite(order[:, 0]), best, -1)
    return face, np.stack([1 - u[pick] - w[pick], u[pick], w[pick]], -1), order[:, 0], doubt


def test_agrees_with_a_ray_caster(monkeypatch):
    rng = np.random.default_rng(3)
    corners = rng.uniform((-1.5, -1.2, 1.0), (1.5, 1.2, 4.0), (40, 3, 3))
    corners[0] = ((-9, -9, 0.4), (-9, 9, 0.4), (30, 0, 30))  # steep: affine interpolation would be far off
    corners[1, 0, 2] = -1.0  # crosses the camera plane: dropped
    vertices, faces = np.float32(corners.reshape(-1, 3)), np.arange(120).reshape(-1, 3)
    centre, focal_length = np.array([48.0, 32.5]), np.float64(75.0)  # a NumPy scalar must not promote to float64
    monkeypatch.setattr(render, "CHUNK", 700)  # many chunks, and some faces larger than one
    seen = render.rasterize(vertices, faces, focal_length, (65, 96))
    face, bary, depth, doubt = ray_cast(vertices, faces, 75.0, (65, 96), centre)

    assert doubt.mean() < 0.15
    seen_face = np.full(65 * 96, -1)
    seen_face[seen.pixel] = seen.face
    np.testing.assert_array_equal(seen_face[~doubt], face[~doubt])
    sure = ~doubt[seen.pixel]
    np.testing.assert_allclose(seen.bary[sure], bary[seen.pixel[sure]], atol=1e-4)
    np.testing.assert_allclose(seen.z[sure], depth[seen.pixel[sure]], rtol=1e-4)
    # Interpolating the vertices themselves gives points on the pixels' rays.
    points = seen.interpolate(vertices, faces)
    x = points[:, 0] / points[:, 2] * 75 + centre[0] - 0.5
    y = points[:, 1] / points[:, 2] * 75 + centre[1] - 0.5
    np.testing.assert_allclose(np.round(y) * 96 + np.round(x), seen.pixel)
    np.testing.assert_allclose(np.stack([x, y]), np.round([x, y]), atol=0.01)
    assert len(np.unique(seen.pixel)) == len(seen.pixel)
    assert {seen.z.dtype, seen.bary.dtype, seen.depth.dtype, points.dtype} == {np.dtype("float32")}


def test_plane_fills_the_picture_at_its_depth():
    vertices, faces = quad([(-9, -9, 3), (-9, 9, 3), (9, 9, 3), (9, -9, 3)])
    seen = render.rasterize(vertices, faces, 20.0, (12, 16))
    assert len(seen.pixel) == 12 * 16
    np.testing.assert_allclose(seen.depth, 3, rtol=1e-6)
    assert not len(render.rasterize(vertices, faces[:, ::-1], 20.0, (12, 16)).pixel)  # seen from behind


def test_pixel_centres():
    """A quad over x in [2, 5) and y in [1, 3) px covers just those pixels; a shift of 0.6 px moves it by one."""
    corners = np.array([(2, 1), (2, 3), (5, 3), (5, 1)]) - (4, 3)  # centre of a 6 x 8 picture
    for shift, expected in ((0.0, np.s_[1:3, 2:5]), (0.4, np.s_[1:3, 2:5]), (0.6, np.s_[2:4, 3:6])):
        vertices, faces = quad(np.c_[(corners + shift) / 10 * 2, np.full(4, 2)])
        mask = np.zeros((6, 8), bool)
        mask[expected] = True
        np.testing.assert_array_equal(np.isfinite(render.rasterize(vertices, faces, 10.0, (6, 8)).depth), mask)


def test_sphere_silhouette_and_watertightness():
    vertices, faces = sphere((0, 0, 4), subdivisions=5)
    seen = render.rasterize(vertices, faces, 400.0, (320, 320))
    radius = 400 / np.sqrt(4**2 - 1)  # the cone of tangents, wider than f r / z
    assert len(seen.pixel) == pytest.approx(np.pi * radius**2, rel=2e-3)
    assert seen.depth.min() == pytest.approx(3, abs=1e-3)
    rows, columns = np.mgrid[:320, :320] - 159.5
    assert np.isfinite(seen.depth[np.hypot(rows, columns) < radius - 1]).all()  # no pinholes between faces
    np.testing.assert_allclose(render.vertex_normals(vertices, faces), vertices - (0, 0, 4), atol=5e-3)


def test_nothing_to_see():
    ahead, faces = sphere((0, 0, 4))
    for centre in ((0, 0, -4), (9, 0, 4), (0, -9, 4), (0, 0, 0.3)):  # behind, right, above, around the camera
        seen = render.rasterize(ahead - (0, 0, 4) + np.float32(centre), faces, 50.0, (40, 60))
        if centre[2] != 0.3:
            assert not len(seen.pixel)
        assert (seen.z > render.NEAR).all()
    photo = np.full((40, 60, 3), 7, np.uint8)
    for meshes in ([], [(ahead - (0, 0, 9), (1, 1, 1))]):
        picture, coverage = render.render_meshes(photo, meshes, faces, 50.0)
        assert (picture == 7).all() and not coverage.any()


def test_bad_meshes_are_refused():
    vertices, faces = sphere((0, 0, 4))
    with pytest.raises(ValueError, match="shapes"):
        render.rasterize(vertices[:, :2], faces, 50.0, (40, 60))
    vertices[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        render.rasterize(vertices, faces, 50.0, (40, 60))


def test_normals_of_a_lone_vertex_are_zero():
    normals = render.vertex_normals(np.float32([(0, 0, 0), (1, 0, 0), (0, 1, 0), (5, 5, 5)]), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(normals, [(0, 0, 1)] * 3 + [(0, 0, 0)])


@pytest.mark.parametrize("supersample", [1, 2])
def test_one_z_buffer_for_all(supersample):
    """The nearer person hides the farther, whatever the order; colours and opacity mix as they should."""
    near, faces = sphere((0, 0, 3), 0.5)
    far, _ = sphere((0, 0, 5), 1.5)
    photo = np.full((60, 80, 3), 100, np.uint8)
    people = [(near, (1.0, 0.0, 0.0)), (far, np.tile(np.float32((0, 0, 1)), (len(far), 1)))]
    for meshes in (people, people[::-1]):
        solid, _ = render.render_meshes(photo, meshes, faces, 60.0, supersample=supersample)
        picture, coverage = render.render_meshes(photo, meshes, faces, 60.0, opacity=0.75, supersample=supersample)
        for pixel, channel in ((solid[30, 40], 0), (solid[30, 40 + 14], 2)):
            assert pixel[channel] > 120 and np.delete(pixel, channel).tolist() == [0, 0]
        np.testing.assert_allclose(picture, 0.25 * photo + 0.75 * solid, atol=1.01)
        np.testing.assert_array_equal(picture[coverage == 0], 100)
    assert (photo == 100).all()
    assert coverage.sum() == pytest.approx(np.pi * 60**2 * 1.5**2 / (5**2 - 1.5**2), rel=0.02)
    assert ((coverage > 0) & (coverage < 1)).any() == (supersample == 2)  # smooth outline


def test_light_comes_over_the_left_shoulder():
    """Each pixel of a white ball is as bright as its normal says, from the shade's 0.4 up."""
    ball, faces = sphere((0, 0, 4), subdivisions=5)
    picture, _ = render.render_meshes(np.zeros((60, 60, 3), np.uint8), [(ball, (1, 1, 1))], faces, 60.0, supersample=1)
    seen = render.rasterize(ball, faces, 60.0, (60, 60))
    facing = (seen.interpolate(ball, faces) - (0, 0, 4)) @ render.LIGHT / np.linalg.norm(render.LIGHT)
    expected = 0.4 + 0.6 * (0.5 * np.maximum(facing, 0) + 0.25 * (1 + facing))
    np.testing.assert_allclose(picture.reshape(-1, 3)[seen.pixel], 255 * expected[:, None].repeat(3, 1), atol=3)
    assert picture[22, 25, 0] > picture[38, 35, 0] + 60


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-2, 2), st.floats(0.6, 30)), min_size=1, max_size=4))
def test_side_view_shows_everybody(centres):
    """All in the frame, as large as fits, in the order of their depths."""
    balls = [sphere(centre, 0.4, 2) for centre in centres]
    picture = render.render_side([(ball, (1, 0, 0)) for ball, _ in balls], balls[0][1], 100.0, (60, 80))
    assert picture.shape == (60, 80, 3)
    drawn = (picture != 244).any(-1)
    assert not (drawn[[0, -1]].any() or drawn[:, [0, -1]].any())
    rows, columns = np.nonzero(drawn)
    assert max(np.ptp(columns) / 80, np.ptp(rows) / 60) > 0.55


def test_side_view_keeps_the_order_in_depth():
    near, faces = sphere((1, 0, 3), 0.4)
    far, _ = sphere((-1, 0, 6), 0.4)
    picture = render.render_side([(far, (0, 0, 1)), (near, (1, 0, 0))], faces, 100.0, (60, 80)).astype(int)
    red = np.nonzero(picture[..., 0] > picture[..., 2] + 50)
    blue = np.nonzero(picture[..., 2] > picture[..., 0] + 50)
    assert red[1].max() < blue[1].min()
    np.testing.assert_allclose(red[0].mean(), blue[0].mean(), atol=1.5)


def test_bundled_body_lands_where_its_vertices_project():
    with np.load(BODY) as body:
        vertices, faces = body["v_template"] * np.float32([1, -1, -1]) + np.float32([0.2, 0, 4]), body["f"]
    seen = render.rasterize(vertices, faces, 300.0, (240, 320))
    xy = vertices[:, :2] / vertices[:, 2:] * 300 + (160, 120)
    rows, columns = np.nonzero(np.isfinite(seen.depth))
    np.testing.assert_allclose([columns.min() + 0.5, rows.min() + 0.5], xy.min(0), atol=2)
    np.testing.assert_allclose([columns.max() + 0.5, rows.max() + 0.5], xy.max(0), atol=2)
    # It faces the camera: the nose's side of the head is nearer than the mean of all vertices.
    assert seen.depth[rows.min() + 10 : rows.min() + 20].min() < vertices[:, 2].mean()
    points = seen.interpolate(vertices, faces)
    np.testing.assert_allclose(points[:, 2], seen.z, rtol=1e-5)
