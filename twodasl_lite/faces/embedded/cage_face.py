"""The left half of the face cage: eye, nose, mouth and cheek loops, as coordinates in millimetres.

Frame: x to the viewer's right, y up, z to the viewer; y = 0 at the height of the pupils, z = 0 at the
tragion. The coordinates are those of the *surface* at the cage vertices (see
:func:`subdivision.interpolate`), so each can be read as an anthropometric point. The distances they respect
are listed in :mod:`anthropometry`.
"""

from __future__ import annotations

import numpy as np

Point = tuple[float, float, float]

EYE_CENTRE = np.array([31.5, 0.2, 71.6])
EYE_RADIUS = 12.0  # mm; axial length of the adult globe is 24 mm (Bekerman et al. 2014)

# The eye loops run from the inner canthus (0) over the upper lid to the outer canthus (8) and back along
# the lower lid.
NUM_EYE = 16

LID_OUTER: list[Point] = [  # lash line: front edge of the lid margin
    (16.2, -1.9, 77.4), (18.9, 0.6, 79.0), (22.6, 3.0, 81.8), (26.8, 4.4, 83.6), (31.0, 4.9, 84.2),
    (35.3, 4.6, 83.5),
    (39.4, 3.5, 81.2), (43.5, 2.1, 77.2), (46.4, 0.2, 72.4), (43.3, -2.1, 76.0), (39.2, -3.9, 79.6),
    (35.3, -5.1, 81.9),
    (31.2, -5.6, 82.9), (26.9, -5.2, 82.7), (22.8, -4.2, 81.4), (19.3, -3.1, 79.3),
]  # fmt: skip
LID_MIDDLE: list[Point] = [  # pretarsal skin
    (14.7, -2.1, 78.7), (17.6, 2.5, 79.4), (22.0, 5.5, 82.2), (26.5, 7.1, 83.9), (31.0, 7.7, 84.3),
    (35.6, 7.3, 83.4),
    (40.3, 6.2, 80.8), (44.4, 3.9, 77.0), (48.3, 0.3, 71.9), (44.4, -3.6, 75.6), (40.2, -6.2, 78.8),
    (35.7, -7.6, 81.2),
    (31.2, -8.1, 82.5), (26.5, -7.6, 82.6), (21.7, -6.3, 81.6), (17.6, -4.4, 79.9),
]  # fmt: skip
LID_CREASE: list[Point] = [  # supratarsal crease, infraorbital crease
    (13.2, -2.0, 80.5), (15.8, 4.6, 80.6), (21.2, 8.2, 82.0), (26.4, 10.0, 82.8), (31.2, 10.7, 82.8),
    (36.2, 10.3, 81.7),
    (41.6, 8.6, 79.2), (46.6, 5.4, 75.4), (50.5, 0.4, 70.9), (46.8, -5.4, 73.9), (41.6, -9.2, 77.5),
    (36.2, -11.2, 80.1),
    (31.0, -11.9, 81.6), (25.5, -11.2, 82.3), (20.2, -9.0, 82.2), (15.6, -5.8, 81.6),
]  # fmt: skip
ORBIT: list[Point] = [  # fold under the brow, lower orbital rim
    (11.0, -1.6, 84.4), (12.9, 7.2, 85.0), (18.8, 11.8, 86.8), (25.8, 14.0, 87.4), (32.6, 14.8, 86.8),
    (39.2, 14.6, 84.4),
    (45.4, 12.6, 80.0), (50.6, 7.8, 74.4), (53.2, 0.2, 69.8), (50.2, -8.4, 71.4), (44.0, -14.0, 76.0),
    (37.2, -17.0, 79.8),
    (29.8, -17.8, 82.2), (22.8, -16.6, 83.6), (17.2, -12.6, 84.8), (13.0, -7.2, 86.2),
]  # fmt: skip
ORBIT_OUTER: list[Point] = [  # nose side, brow, temple, upper cheek
    (8.6, -1.6, 89.6), (9.8, 8.0, 90.2), (13.5, 17.0, 95.0), (23.5, 20.6, 94.4), (33.8, 22.2, 91.2),
    (43.4, 21.8, 85.6),
    (51.0, 18.2, 77.6), (56.0, 9.6, 70.2), (57.8, -1.0, 66.2), (55.6, -13.0, 68.0), (49.6, -22.0, 74.0),
    (40.6, -26.6, 80.0),
    (31.4, -28.0, 83.6), (23.4, -26.4, 86.2), (16.4, -20.0, 89.6), (11.2, -10.6, 92.8),
]  # fmt: skip

# The mouth loops run from the midline of the upper lip (0) round the corner (5) to the midline of the lower
# lip (10).
NUM_MOUTH = 11
MOUTH_CORNER = 5
LIP_GAP = 0.03  # mm between the two lips of the closed mouth, half to either side

PARTING: list[Point] = [  # upper half; the lower lip mirrors it across the gap
    (0.0, -67.5, 100.6), (5.0, -67.1, 100.0), (10.5, -66.7, 98.2), (16.0, -66.8, 95.2),
    (20.7, -67.2, 91.8), (24.8, -67.6, 88.6),
]  # fmt: skip
VERMILION: list[Point] = [
    (0.0, -63.2, 105.6), (5.0, -62.6, 105.0), (10.5, -63.0, 102.4), (16.0, -64.2, 98.4),
    (21.2, -65.9, 93.9), (26.0, -67.7, 89.2),
    (21.2, -70.0, 93.2), (16.0, -72.0, 97.0), (10.5, -72.9, 100.4), (5.0, -73.1, 102.6), (0.0, -72.8, 103.2),
]  # fmt: skip
LIP_BORDER: list[Point] = [
    (0.0, -59.4, 105.4), (5.0, -58.3, 105.2), (11.0, -60.2, 102.2), (17.0, -62.6, 97.6),
    (22.6, -65.2, 92.9), (27.4, -67.8, 88.8),
    (22.4, -71.8, 91.8), (17.0, -75.1, 95.0), (11.0, -76.9, 98.0), (5.2, -77.5, 100.2), (0.0, -77.4, 100.8),
]  # fmt: skip
LIP_SKIN: list[Point] = [
    (0.0, -53.0, 104.0), (5.5, -52.7, 104.9), (12.0, -54.2, 101.0), (19.5, -57.5, 95.8),
    (26.2, -62.0, 91.2), (30.4, -68.2, 87.4),
    (25.5, -75.8, 88.6), (19.5, -79.3, 91.4), (12.8, -81.2, 94.4), (6.2, -82.0, 96.6), (0.0, -82.0, 97.2),
]  # fmt: skip
MOUTH_OUTER: list[Point] = [  # nasal base, nasolabial fold, labiomental fold; 0-3 belong to the nose
    (0.0, -46.8, 104.4), (7.0, -47.4, 101.4), (13.6, -46.2, 97.6), (18.0, -45.8, 92.2),
    (26.4, -54.5, 90.6), (33.5, -67.5, 85.4),
    (31.0, -79.0, 84.4), (23.0, -85.0, 88.4), (15.0, -87.6, 92.0), (7.2, -88.2, 94.8), (0.0, -88.2, 95.4),
]  # fmt: skip
CHIN: list[Point] = [  # from the nasolabial fold round the chin; indices 4-10 of the loop
    (28.5, -45.5, 89.6), (39.0, -62.0, 80.8), (38.8, -79.5, 77.0), (32.0, -92.5, 80.2),
    (22.0, -99.5, 87.4), (11.0, -101.0, 95.4),
    (0.0, -101.0, 98.0),
]  # fmt: skip

NOSE: dict[str, Point] = {
    "glabella": (0.0, 20.0, 99.8), "nasion": (0.0, 5.0, 95.6), "nasion_side": (4.8, 6.5, 93.4),
    "bridge_c": (0.0, -4.0, 99.6), "bridge_c_side": (5.0, -3.5, 96.2),
    "bridge_d": (0.0, -14.0, 106.4), "bridge_d_side": (5.8, -13.0, 102.6),
    "bridge_e": (0.0, -24.0, 113.8), "bridge_e_side": (6.6, -22.6, 109.4),
    "bridge_e_wall": (11.6, -20.6, 100.2),
    "tip": (0.0, -34.0, 121.6), "tip_side": (6.4, -33.0, 118.2), "groove_front": (11.0, -28.2, 109.6),
    "groove_middle": (15.6, -29.2, 100.2), "groove_back": (19.8, -36.4, 92.6),
    "dome_low": (6.2, -39.0, 116.4), "infratip": (0.0, -42.4, 116.6), "columella": (0.0, -45.4, 110.2),
    "ala_outer": (18.0, -41.4, 97.4), "ala_middle": (16.6, -36.6, 103.6), "ala_front": (12.0, -36.0, 111.0),
}  # fmt: skip
NOSTRIL_OUTER = [
    "dome_low", "infratip", "columella", "subnasale", "sill", "ala_base", "ala_outer", "ala_middle",
    "ala_front",
]  # fmt: skip
NOSTRIL_RIM: list[Point] = [
    (6.9, -41.2, 113.0), (3.4, -43.2, 112.0), (3.3, -45.2, 108.0), (4.6, -46.2, 104.4), (8.0, -46.2, 102.0),
    (11.8, -45.4, 100.6), (14.0, -43.6, 101.8), (13.4, -42.0, 105.4), (10.6, -41.0, 110.0),
]  # fmt: skip
NOSTRIL_DEPTH = np.array([-0.6, 11.0, -3.0])

# Cheek, named by row (Greek letter) and by column from the front (1) to the ear (3).
CHEEK: dict[str, Point] = {
    "malar_low": (45.0, -45.5, 78.6), "buccal": (49.0, -64.5, 71.6), "jowl": (45.5, -82.0, 67.5),
    "jaw_2": (31.5, -104.0, 71.5), "jaw_1": (15.5, -110.6, 83.6), "menton": (0.0, -112.0, 88.5),
    "malar": (54.5, -40.0, 69.0), "buccal_back": (58.3, -58.0, 59.0), "jowl_back": (53.5, -78.5, 54.5),
    "jaw_3": (43.0, -96.0, 56.0),
    "gamma_1": (60.0, -26.5, 62.5), "beta_1": (63.2, -12.5, 55.0), "alpha_1": (63.2, 2.0, 54.0),
    "alpha_2": (67.6, 4.0, 38.0), "beta_2": (68.2, -10.0, 39.0), "gamma_2": (68.0, -25.0, 41.0),
    "delta_2": (65.8, -43.0, 38.5),
    "epsilon_2": (62.4, -60.5, 35.5), "phi_2": (57.4, -76.0, 35.0), "zeta_2": (51.0, -87.5, 36.0),
    "alpha_3": (69.6, 7.0, 20.0), "beta_3": (70.0, -8.0, 20.5), "gamma_3": (69.8, -23.0, 20.5),
    "delta_3": (68.4, -41.0, 17.5),
    "epsilon_3": (65.2, -56.5, 14.0), "phi_3": (61.6, -67.0, 11.0), "zeta_3": (57.2, -77.0, 9.0),
}  # fmt: skip
