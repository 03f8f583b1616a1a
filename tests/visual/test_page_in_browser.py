"""The page of a run, in a real browser: a video plays beside its people, who can be followed and switched off."""

import base64
import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from cliff_ms.body.files import load_body
from cliff_ms.io.video import VideoWriter
from cliff_ms.visual import page
from cliff_ms.visual.browser import Clip
from tests.toys.motion import TO_Y_UP, make_track
from tests.toys.reference import reference_smpl
from tests.visual.test_motion import recorded_poses

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

FPS, FRAMES, IMG_HW = 10.0, 30, (240, 320)
COLOURS = ((0.9, 0.1, 0.1), (0.1, 0.2, 0.9))


@pytest.fixture(scope="module")
def browser():
    # Chromium as Playwright fetches it plays no H.264; the system's does.
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if system is None:
        pytest.skip("there is no Chromium: install Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader", "--autoplay-policy=no-user-gesture-required"]
        chromium = playwright.chromium.launch(executable_path=system, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def tracks(body):
    """One who is there all the time, and one who comes later and leaves; every other frame of the video was taken."""
    made = [
        make_track(body, recorded_poses(), number, frames, 2 * FPS, seed=number)
        for number, frames in ((0, 2 * np.arange(FRAMES)), (1, 2 * np.arange(8, 24)))
    ]
    return [dataclasses.replace(track, colour=colour) for track, colour in zip(made, COLOURS, strict=True)]


@pytest.fixture(scope="module")
def film(browser, body, tracks, tmp_path_factory):
    """An open page; each frame of its video is of its own grey."""
    folder = tmp_path_factory.mktemp("page")
    with VideoWriter(folder / "film.mp4", FPS, IMG_HW) as writer:
        for k in range(FRAMES):
            writer.write(np.full((*IMG_HW, 3), 8 * k, np.uint8))
    clip = Clip("film.mp4", FPS, 2 * np.arange(FRAMES), np.arange(FRAMES))
    people = [page.Person(track, track.colour, {"person": track.number}) for track in tracks]
    still = np.full((*IMG_HW, 3), 90, np.uint8)
    posed = reference_smpl(body, tracks[1].betas, tracks[1].rotmats[0])[0] + tracks[1].translation[0]
    photo = page.PageEntry("a photo", still, still, [page.Person(posed, COLOURS[1], {"person": 0})])
    page.write_page(
        folder / "index.html", [page.PageEntry("film", still, None, people, clip=clip), photo], body.faces, "", ""
    )
    (folder / "film.mp4").unlink()  # the page stands alone
    shown = browser.new_page(viewport={"width": 1300, "height": 900}, device_scale_factor=2, color_scheme="light")
    shown.complaints, shown.requests = [], []
    shown.on("console", lambda message: shown.complaints.append(message.text) if message.type == "error" else None)
    shown.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.on("request", lambda request: shown.requests.append(request.url))
    shown.goto((folder / "index.html").as_uri())
    shown.wait_for_function("document.querySelector('video').readyState >= 2")
    yield shown
    assert shown.evaluate("document.querySelector('.viewer canvas').getContext('webgl2').getError()") == 0
    assert shown.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in shown.requests)


def show_frame(film, frame):
    film.evaluate(
        """frame => { const bar = document.querySelector('.bar input');
        bar.value = frame; bar.dispatchEvent(new Event('input')); }""",
        frame,
    )
    film.wait_for_function("!document.querySelector('video').seeking")
    film.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def frame_of_video(film):
    """By its grey."""
    grey = film.evaluate(
        """() => { const canvas = document.createElement('canvas'), video = document.querySelector('video');
        const pen = canvas.getContext('2d'); pen.drawImage(video, 0, 0, 8, 8, 0, 0, 8, 8);
        return pen.getImageData(4, 4, 1, 1).data[0]; }"""
    )
    return round(grey / 8)


def coloured(film):
    """Which pixels of the 3D view show each of the two people."""
    url = film.evaluate(
        """() => new Promise(done => {
        for (const slot of document.querySelectorAll('.slot')) slot.dispatchEvent(new Event('pose'));
        requestAnimationFrame(() => done(document.querySelector('.viewer canvas').toDataURL())); })"""
    )
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), 1)[..., ::-1]
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    return [red > 2 * blue, blue > 2 * red]


def silhouettes(film, body, tracks, frame, shape):
    """What the 3D view should show of all: SMPL's float64 reference under the matrices that the view has."""
    view, projection = film.evaluate(
        """() => { const gl = document.querySelector('.viewer canvas').getContext('webgl2');
        const program = gl.getParameter(gl.CURRENT_PROGRAM);
        return ['view', 'projection'].map(k => [...gl.getUniform(program, gl.getUniformLocation(program, k))]); }"""
    )
    matrix = np.reshape(projection, (4, 4)).T @ np.reshape(view, (4, 4)).T
    mask = np.zeros(shape, np.uint8)
    for track in tracks:
        for row in np.flatnonzero(track.frames == 2 * frame):
            vertices, _ = reference_smpl(body, track.betas, track.rotmats[row])
            vertices = (vertices + track.translation[row]) @ TO_Y_UP
            clip = np.c_[vertices, np.ones(len(vertices))] @ matrix.T
            pixels = (clip[:, :2] / clip[:, 3:] * (0.5, -0.5) + 0.5) * (shape[1], shape[0]) - 0.5
            for corners in pixels[body.faces]:
                cv2.fillConvexPoly(mask, np.round(corners * 16).astype(np.int32), 1, shift=4)
    return mask.astype(bool)


def outside(first, second):
    """Share of the first mask that is more than a pixel away from the second."""
    near = cv2.dilate(second.astype(np.uint8), np.ones((3, 3))) > 0
    return (first & ~near).sum() / first.sum()


def test_scrubbing_moves_video_bodies_and_map_alike(film, body, tracks):
    for name, frame in (("Camera", 3), ("Side", 12), ("Top", 20), ("3/4", 29)):
        film.get_by_role("button", name=name, exact=True).click()
        show_frame(film, frame)
        assert frame_of_video(film) == frame
        seen = coloured(film)
        for k, track in enumerate(tracks):
            spot = film.locator(".map .spot").nth(k)
            here = 2 * frame in track.frames
            assert spot.get_attribute("visibility") == ("visible" if here else "hidden")
            assert seen[k].any() == here
        expected = silhouettes(film, body, tracks, frame, seen[0].shape)
        assert outside(seen[0] | seen[1], expected) < 0.005 and outside(expected, seen[0] | seen[1]) < 0.005
        place = (tracks[0].rig.joints[0] + tracks[0].translation[frame]) @ TO_Y_UP
        spot = film.locator(".map .spot").first.get_attribute("d")
        np.testing.assert_allclose([float(x) for x in spot[1:-2].split()], place[[0, 2]], atol=0.006)


def test_moving_the_video_moves_the_bodies(film):
    film.evaluate("document.querySelector('video').currentTime = 1.55")
    film.wait_for_function("document.querySelector('.bar input').value == 15")
    assert frame_of_video(film) == 15


def test_it_plays_and_stays_together(film):
    show_frame(film, 5)
    film.get_by_role("button", name="Play", exact=True).click()
    film.wait_for_function("document.querySelector('.bar input').value > 12")
    film.get_by_role("button", name="Pause", exact=True).click()
    film.wait_for_timeout(200)
    assert 12 < frame_of_video(film) == int(film.locator(".bar input").input_value()) < 29


def test_a_person_is_switched_off(film):
    show_frame(film, 12)
    assert all(seen.any() for seen in coloured(film))
    film.locator("input[type=checkbox]").first.uncheck()
    film.wait_for_timeout(100)
    first, second = coloured(film)
    assert not first.any() and second.any()
    assert film.locator(".map polyline").first.get_attribute("visibility") == "hidden"
    film.locator("input[type=checkbox]").first.check()
    film.wait_for_timeout(100)
    assert all(seen.any() for seen in coloured(film))


def test_without_a_video_that_plays_the_bodies_still_move(film):
    source = film.evaluate("document.querySelector('video').src")
    film.evaluate("document.querySelector('video').removeAttribute('src'); document.querySelector('video').load()")
    show_frame(film, 28)
    film.get_by_role("button", name="Play", exact=True).click()
    film.wait_for_function("document.querySelector('.bar input').value == 29")
    film.get_by_role("button", name="Play", exact=True).click()  # from the start again
    film.wait_for_function("document.querySelector('.bar input').value > 2")
    film.get_by_role("button", name="Pause", exact=True).click()
    film.evaluate("source => { document.querySelector('video').src = source; }", source)
    film.wait_for_function("document.querySelector('video').readyState >= 2")


def test_pictures_are_enlarged(film):
    picture = film.locator("figure img").first
    picture.click()
    assert film.locator("dialog").is_visible()
    assert film.locator("dialog img").get_attribute("src") == picture.get_attribute("src")
    film.keyboard.press("Escape")
    assert not film.locator("dialog").is_visible()


def test_bodies_of_photos_and_videos_share_one_view(film):
    film.get_by_role("button", name="Show in 3D").click()
    first, second = coloured(film)
    assert not first.any() and second.mean() > 0.02
    film.get_by_role("button", name="Show in 3D").click()
    show_frame(film, 12)
    assert all(seen.any() for seen in coloured(film))


def test_a_view_is_filled_by_those_who_are_switched_on(film):
    show_frame(film, 12)
    film.get_by_role("button", name="Side", exact=True).click()
    both = coloured(film)[0].sum()
    film.locator("input[type=checkbox]").nth(1).uncheck()
    film.get_by_role("button", name="Side", exact=True).click()
    assert coloured(film)[0].sum() > 1.2 * both
    film.locator("input[type=checkbox]").nth(1).check()
