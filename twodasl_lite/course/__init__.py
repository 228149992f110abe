"""Coursework: assignments generated from solved sources, and checkers for the answers in a notebook.

May import ``base`` and ``geometry``. No chapter explains it: the instructors' page of the book does.

* :mod:`twodasl_lite.course.checks`: checkers for notebooks, which say what is wrong without giving the answer away.
* :mod:`twodasl_lite.course.build`: makes an nbgrader course from the solved sources in ``assignments/``.
* :mod:`twodasl_lite.course.report`: results of autograding, including submissions that failed.

The command is ``twodasl course``; the instructors' page of the book explains how to teach with it.
"""
