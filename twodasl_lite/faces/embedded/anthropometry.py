"""Published measurements of the adult head and face, in millimetres.

Sources, quoted by their short names below:

* ``Farkas 1994``: L. G. Farkas (ed.), *Anthropometry of the Head and Face*, 2nd ed., Raven Press, appendix A
  (North American adults, 19-25 years).
* ``NIOSH 2005``: Z. Zhuang and B. Bradtmiller, "Head-and-face anthropometric survey of U.S. respirator
  users", *J. Occup. Environ. Hyg.* 2:567-576, 2005, tables III-IV (2,543 men, 1,454 women).
* ``ANSUR II``: C. C. Gordon et al., *2012 Anthropometric Survey of U.S. Army Personnel*, Natick TR-15/007.
* ``3DFN 2016``: S. M. Weinberg et al., "The 3D Facial Norms Database", *Cleft Palate Craniofac. J.*
  53:e185-e197.

The numbers are the commonly quoted adult values of these sources, meant for drawing plausible faces and not for
reference; the template is modelled halfway between the two sexes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measurement: mean and standard deviation of men and of women (mm) and the table it comes from."""

    name: str
    male: tuple[float, float]
    female: tuple[float, float]
    source: str

    @property
    def mean(self) -> float:
        """Average of the means of the two sexes, mm."""
        return 0.5 * (self.male[0] + self.female[0])

    @property
    def half_difference(self) -> float:
        """Half of the difference between men's and women's means, mm."""
        return 0.5 * (self.male[0] - self.female[0])

    @property
    def within_sex(self) -> float:
        """Standard deviation within one sex, mm."""
        return 0.5 * (self.male[1] + self.female[1])


_TABLE = [
    Measure("head_length", (197.3, 7.4), (187.5, 7.2), "NIOSH 2005"),  # glabella - opisthocranion
    Measure("head_breadth", (153.0, 6.0), (146.8, 5.6), "NIOSH 2005"),  # euryon - euryon
    Measure("vault_height", (131.0, 6.0), (124.0, 6.0), "ANSUR II"),  # tragion - top of head
    Measure("face_width", (143.5, 6.9), (135.1, 6.5), "NIOSH 2005"),  # zygion - zygion
    Measure("jaw_width", (120.4, 10.4), (110.1, 8.9), "NIOSH 2005"),  # gonion - gonion
    Measure("frontal_breadth", (105.5, 5.7), (102.9, 5.4), "NIOSH 2005"),  # minimum frontal breadth
    Measure("face_length", (122.7, 7.0), (113.4, 6.1), "NIOSH 2005"),  # sellion - menton
    Measure("nose_length", (52.0, 4.1), (48.2, 3.8), "NIOSH 2005"),  # sellion - subnasale
    Measure("nose_breadth", (36.6, 4.1), (33.2, 3.9), "NIOSH 2005"),  # ala - ala
    Measure("nose_protrusion", (21.1, 2.7), (19.8, 2.7), "NIOSH 2005"),  # subnasale - pronasale
    Measure("nose_root_breadth", (16.6, 2.3), (16.3, 2.0), "NIOSH 2005"),
    Measure("mouth_width", (51.1, 4.2), (48.0, 4.0), "NIOSH 2005"),  # cheilion - cheilion
    Measure("pupil_distance", (64.5, 3.6), (61.9, 3.5), "NIOSH 2005"),
    Measure("lower_face", (72.6, 4.5), (64.3, 4.0), "Farkas 1994"),  # subnasale - gnathion
    Measure("upper_lip", (22.3, 2.1), (20.1, 2.0), "Farkas 1994"),  # subnasale - stomion
    Measure("upper_vermilion", (8.0, 1.4), (8.7, 1.3), "Farkas 1994"),  # labiale superius - stomion
    Measure("lower_vermilion", (9.3, 1.6), (9.4, 1.5), "Farkas 1994"),  # stomion - labiale inferius
    Measure("chin_height", (31.5, 2.8), (26.6, 2.4), "Farkas 1994"),  # sublabiale - gnathion
    Measure("intercanthal", (33.3, 2.7), (31.8, 2.3), "Farkas 1994"),  # endocanthion - endocanthion
    Measure("fissure_length", (31.3, 1.2), (30.7, 1.2), "Farkas 1994"),  # endocanthion - exocanthion
    Measure("fissure_height", (10.8, 0.9), (10.9, 1.2), "Farkas 1994"),  # palpebrale superius - inferius
    Measure("forehead_height", (57.0, 6.2), (52.7, 6.0), "Farkas 1994"),  # trichion - glabella
    Measure("ear_length", (62.4, 3.7), (58.5, 3.6), "Farkas 1994"),  # superaurale - subaurale
    Measure("ear_width", (35.4, 2.3), (33.5, 2.1), "Farkas 1994"),  # preaurale - postaurale
    Measure("upper_depth", (122.8, 4.6), (115.4, 4.4), "3DFN 2016"),  # tragion - nasion
    Measure("middle_depth", (128.3, 4.7), (119.9, 4.6), "3DFN 2016"),  # tragion - subnasale
    Measure("lower_depth", (147.4, 5.8), (136.6, 5.5), "3DFN 2016"),  # tragion - gnathion
]

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _TABLE}
