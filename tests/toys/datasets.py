"""Data sets as they are downloaded, small: two or three frames or people of each, from numbers that are returned."""

import io
import json
import pickle
import struct
from types import SimpleNamespace

import cv2
import numpy as np
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.keypoints import LSP_EXTRA9, SMPL45
from tests.toys.body import toy_arrays, toy_regressor
from tests.toys.reference import reference_smpl


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 writes it: strings, and the bytes of arrays, as latin1 byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def write_python2_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue())


def write_bodies(folder, with_extra=True):
    """SMPL_MALE.pkl and SMPL_FEMALE.pkl, toys of one mesh, and SPIN's regressor of the nine joints."""
    folder.mkdir()
    for seed, name in enumerate(("MALE", "FEMALE")):
        with open(folder / f"SMPL_{name}.pkl", "wb") as file:
            pickle.dump(toy_arrays(seed=seed) | {"extra_vertex_ids": np.arange(21)}, file, protocol=2)
    if with_extra:
        np.save(folder / "J_regressor_extra.npy", toy_regressor(LSP_EXTRA9))
    return folder


INTRINSICS = np.array([[1961.0, 0, 541], [0, 1969.0, 955], [0, 0, 1]])


def write_3dpw(root, split="test", people=("m", "f"), frames=3):
    """A portrait camera; no valid camera at (person 0, frame 1), no detection at (person 1, frame 2)."""
    rng = np.random.default_rng(3)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.random(frames, random_state=1).as_matrix()
    cameras[:, :3, 3] = rng.normal(size=(frames, 3))
    poses = [rng.normal(0, 0.4, (frames, 72)) for _ in people]
    wanted = [np.array([0.5 * k, 0.2, 12.0]) + rng.normal(0, 0.1, (frames, 3)) for k in range(len(people))]
    # Where SMPL's translation must be in the world for a person to stand about there in the camera.
    trans = [np.einsum("nji,nj->ni", cameras[:, :3, :3], p - cameras[:, :3, 3]) for p in wanted]
    poses2d = [np.concatenate([rng.uniform(100, 900, (frames, 2, 18)), np.ones((frames, 1, 18))], 1) for _ in people]
    poses2d[0][0, 2, 4] = 0.2  # a wrist that OpenPose is not sure of
    poses2d[0][0, :, 5] = 0  # and a shoulder that it did not see
    poses2d[-1][2] = 0
    valid = [np.ones(frames, np.int64) for _ in people]
    valid[0][1] = 0
    content = {
        "sequence": "court\xe9_00",
        "betas": [rng.normal(0, 1, 300) for _ in people],
        "poses": poses,
        "trans": trans,
        "genders": list(people),
        "poses2d": poses2d,
        "cam_poses": cameras,
        "campose_valid": valid,
        "cam_intrinsics": INTRINSICS,
        "img_frame_ids": np.arange(frames) * 2,  # of the 60 Hz poses: must not be used
        "jointPositions": [np.zeros((frames, 72)) for _ in people],
    }
    folder = {"train": "train", "val": "validation", "test": "test"}[split]
    write_python2_pickle(root / "sequenceFiles" / folder / "court_00.pkl", content)
    return content


def write_3dpw_image(root, hw):
    path = root / "imageFiles" / "court_00" / "image_00000.jpg"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))


def placed_in_camera(content, body_dir, person, frame):
    """All landmarks (54, 3) m of a person in the camera, in float64 and in the world first."""
    body = load_body(body_dir / {"m": "SMPL_MALE.pkl", "f": "SMPL_FEMALE.pkl"}[content["genders"][person]])
    rotmats = Rotation.from_rotvec(content["poses"][person][frame].reshape(24, 3)).as_matrix()
    vertices, joints = reference_smpl(body, content["betas"][person][:10], rotmats)
    extra = np.load(body_dir / "J_regressor_extra.npy") @ vertices
    world = np.concatenate([joints, extra]) + content["trans"][person][frame]
    camera = content["cam_poses"][frame]
    return dict(zip(SMPL45 + LSP_EXTRA9, world @ camera[:3, :3].T + camera[:3, 3], strict=True))


def write_cdf(path, array):
    from cdflib.cdfwrite import CDF

    path.parent.mkdir(parents=True, exist_ok=True)
    flat = array.reshape(1, len(array), -1)
    cdf = CDF(str(path), delete=True)
    spec = {"Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": list(flat.shape[1:])}
    cdf.write_var(spec, var_data=flat)
    cdf.close()


def write_masks(path, masks):
    """MATLAB 7.3: a list of references to masks that are stored column by column."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        references = file.create_dataset("Masks", (len(masks), 1), h5py.ref_dtype)
        for k, mask in enumerate(masks):
            references[k, 0] = file.create_dataset(f"#refs#/{k}", data=mask.T).ref


def write_video(path, frames):
    """Frame k is grey of 10 k: far enough apart for any codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 50, (64, 48))
    for k in range(frames):
        writer.write(np.full((48, 64, 3), 10 * k, np.uint8))
    writer.release()


def write_h36m(root, subject="S9", stem="TakingPhoto 1.60457274", frames=11, joints=None):
    """One video; the masks of frames 0 and 5 are boxes that are known, that of frame 10 is empty."""
    rng = np.random.default_rng(5)
    points = rng.uniform(100, 900, (frames, 32, 2))
    joints = rng.normal(0, 500, (frames, 32, 3)) if joints is None else joints
    folder = root / subject
    write_cdf(folder / "MyPoseFeatures" / "D3_Positions_mono" / f"{stem}.cdf", joints)
    write_cdf(folder / "MyPoseFeatures" / "D2_Positions" / f"{stem}.cdf", points)
    masks = np.zeros((frames, 1002, 1000), np.uint8)
    masks[0, 100:701, 300:500] = 1  # rows 100 to 700, columns 300 to 499
    masks[5, 400:450, 200:600] = 1
    write_masks(folder / "MySegmentsMat" / "ground_truth_bb" / f"{stem}.mat", masks)
    return SimpleNamespace(joints=joints, points=points, video=folder / "Videos" / f"{stem}.mp4")


def write_mosh(root, poses, name="S9/TakingPhoto 1_cam3_aligned.pkl"):
    betas = np.linspace(-1, 1, 10)
    write_python2_pickle(root / name, {"new_poses": poses, "betas": betas, "trans": np.zeros((len(poses), 3))})
    return betas


def write_3dhp_train(root, sequence="S1/Seq1", frames=25, outside=(1,)):
    """Fourteen cameras; in the frames `outside` a wrist is outside the image of camera 0."""
    rng = np.random.default_rng(7)
    points = rng.uniform(10, 2000, (14, frames, 28, 2))
    joints = rng.normal(0, 700, (14, frames, 28, 3))
    points[0, list(outside), 16, 0] = 2048.0
    points[0, 3, 27, 0] = -50  # a joint that is not used
    folder = root / sequence
    folder.mkdir(parents=True)
    cells = {}
    for key, array in (("annot2", points), ("annot3", joints), ("univ_annot3", 2 * joints)):
        cells[key] = np.empty((14, 1), object)
        cells[key][:, 0] = list(array.reshape(14, frames, -1))
    savemat(folder / "annot.mat", cells)
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(14):
        intrinsic = np.array([[1500 + camera, 0, 1024, 0], [0, 1502 + camera, 1024, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        numbers = [" ".join(f"{v:g}" for v in matrix.ravel()) for matrix in (intrinsic, np.eye(4))]
        lines += [f"name          {camera}", "  sensor      10 10", "  size        2048 2048", "  animated    0"]
        lines += [f"  intrinsic   {numbers[0]} ", f"  extrinsic   {numbers[1]} ", "  radial      0"]
    (folder / "camera.calibration").write_text("\n".join(lines) + "\n")
    return points, joints


def write_3dhp_test(root, sequence="TS5", frames=3, joints=None):
    import h5py

    rng = np.random.default_rng(8)
    points = rng.uniform(100, 900, (frames, 1, 17, 2))
    joints = rng.normal(0, 700, (frames, 1, 17, 3)) if joints is None else joints[:, None]
    points[0, 0, 4, 0] = 5000  # outside the image, and still scored
    folder = root / "mpi_inf_3dhp_test_set" / sequence
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["valid_frame"] = np.array([[1.0], [0.0], [1.0]])
        file["annot2"], file["univ_annot3"], file["annot3"] = points, joints, 3 * joints
        file["activity_annotation"] = np.ones((frames, 1))
    return points[:, 0], joints[:, 0]


def write_coco(root, split="train"):
    """Two people in one image, of whom one lacks a knee, and a crowd without keypoints."""
    points = np.zeros((2, 17, 3))
    points[..., :2] = np.arange(68).reshape(2, 17, 2) + 30
    points[..., 2] = 2
    points[0, :3] = 0  # no face
    points[0, 7, 2] = 1  # hidden, but labelled
    points[1, 13] = 0
    name = f"COCO_{split}2014_000000000042.jpg"
    annotations = [
        {"id": 100 + k, "image_id": 42, "bbox": [10.0, 20.0, 40.0 + k, 90.0], "keypoints": p.ravel().tolist()}
        for k, p in enumerate(points)
    ]
    annotations.append({"id": 102, "image_id": 42, "bbox": [0, 0, 9, 9], "keypoints": [0] * 51, "iscrowd": 1})
    content = {"images": [{"id": 42, "file_name": name, "height": 480, "width": 640}], "annotations": annotations}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / f"person_keypoints_{split}2014.json").write_text(json.dumps(content))
    return points


def mpii_points():
    points = np.arange(96, dtype=float).reshape(3, 16, 2) + 20
    points[1, 9] = 0  # no head top
    return points


def write_mpii_h5(root, name="train.h5"):
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / name, "w") as file:
        file["imgname"] = np.array([b"015601864.jpg", b"005808361.jpg", b"086617615.jpg"])
        file["part"] = mpii_points()
        file["center"] = np.array([[100.0, 145], [50, 60], [300, 215]])
        file["scale"] = np.array([3 * 1.25, 1, 1.25])


def write_mpii_mat(root, damaged=False):
    """The same people as in the h5: two in one image, one alone (MATLAB makes no list of one), and a test image.

    `damaged`: in another image there are two more, one with a joint number 16 and one without scale.
    """
    root.mkdir(parents=True, exist_ok=True)

    def person(points, scale, x, y):
        joints = [{"id": k, "x": px, "y": py, "is_visible": []} for k, (px, py) in enumerate(points) if px > 0]
        return {"scale": scale, "objpos": {"x": x, "y": y}, "annopoints": {"point": np.array(joints)}, "x1": 1.0}

    def image(name, *people):
        return {"image": {"name": name}, "annorect": np.array(people) if people else np.zeros((0, 0))}

    a, b, c = mpii_points()
    images = [
        image("015601864.jpg", person(a, 3.0, 100.0, 100.0), {"x1": 5.0, "scale": 1.0}),
        image("005808361.jpg", person(b, 1.0, 50.0, 45.0)),
        image("086617615.jpg", person(c, 1.0, 300.0, 200.0)),
        image("099999999.jpg", person(a, 1.0, 300.0, 200.0)),
        image("000000001.jpg"),
    ]
    is_train = [1, 1, 1, 0, 1]
    if damaged:
        joint, scale = person(a, 3.0, 100.0, 100.0), person(a, 3.0, 100.0, 100.0)
        joint["annopoints"]["point"][0]["id"] = 16
        del scale["scale"]
        images.append(image("000000002.jpg", joint, scale))
        is_train.append(1)
    release = {"annolist": np.array(images), "img_train": np.array(is_train), "version": "12"}
    savemat(root / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})


def write_lsp(root):
    points = np.random.default_rng(2).uniform(5, 150, (2000, 14, 2))
    root.mkdir(parents=True, exist_ok=True)
    joints = np.concatenate([points, np.zeros((2000, 14, 1))], 2)
    savemat(root / "joints.mat", {"joints": joints.transpose(2, 1, 0)})
    return points


def write_lspet(root):
    points = np.random.default_rng(2).uniform(5, 150, (3, 14, 2))
    root.mkdir(parents=True, exist_ok=True)
    for name in ("im00003.png", "im00001.png", "im00002.png"):
        (root / name).write_bytes(b"png")
    joints = np.concatenate([points, np.zeros((3, 14, 1))], 2)
    savemat(root / "joints.mat", {"joints": joints.transpose(1, 2, 0)})
    return points
