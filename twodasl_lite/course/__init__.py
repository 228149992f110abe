"""Coursework: assignments generated from solved sources, and what a notebook can ask about its own answers.

* :mod:`twodasl_lite.course.checks`: checkers for notebooks: they say what is wrong without giving the answer away.
* :mod:`twodasl_lite.course.build`: makes an nbgrader course from the solved sources in ``assignments/``.
* :mod:`twodasl_lite.course.report`: what came out of autograding, submissions that failed included.

The command is ``twodasl course``; the instructor's page of the book says how to teach with it.
"""
