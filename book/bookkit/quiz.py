"""Quizzes at the end of chapters: read from ``book/quizzes/NN.toml``, written as Markdown for the page.

A question has three or four choices, one of them right, and every choice explains itself::

    [[questions]]
    text = "How many numbers does a network predict here?"

    [[questions.choices]]
    text = "62"
    why = "Twelve for the pose, forty for the shape, ten for the expression."
    right = true

    [[questions.choices]]
    text = "68"
    why = "That is the number of landmarks."

Texts are MyST Markdown; in single quotes a backslash stays a backslash. On the page each choice is a ``<details>``
element, so that a quiz works with a keyboard, with a screen reader, and without any script; ``_static/book.js`` only
counts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from bookkit.config import BOOK, Chapter

QUIZZES = BOOK / "quizzes"
TITLE = "Test yourself"
FEWEST_CHOICES, MOST_CHOICES = 3, 4


@dataclass(frozen=True)
class Choice:
    """One answer that a reader may give.

    Attributes:
        text: Text of the answer.
        why: Explanation of why it is right or wrong.
        right: Whether it is right.
    """

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question and its choices, in the order of the page."""

    text: str
    choices: tuple[Choice, ...]


def quiz_path(chapter: Chapter) -> Path:
    """Path of a chapter's quiz."""
    return QUIZZES / f"{chapter.number:02d}.toml"


def read_quiz(path: Path) -> list[Question]:
    """Read and check a quiz.

    Raises:
        ValueError: If a question does not have the form described in this module's docstring; names file and question.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    questions = []
    for number, entry in enumerate(content.get("questions", []), start=1):
        where = f"{path.name}, question {number}"
        choices = entry.get("choices", [])
        for owner, keys, allowed in (
            (entry, ("text", "choices"), {"text", "choices"}),
            *((choice, ("text", "why"), {"text", "why", "right"}) for choice in choices),
        ):
            missing = [key for key in keys if not owner.get(key)]
            if missing or set(owner) - allowed:
                raise ValueError(f"{where}: found {sorted(owner)}; expected {', '.join(sorted(allowed))}")
        if not FEWEST_CHOICES <= len(choices) <= MOST_CHOICES:
            raise ValueError(f"{where}: found {len(choices)} choices; expected {FEWEST_CHOICES} to {MOST_CHOICES}")
        right = sum(bool(choice.get("right")) for choice in choices)
        if right != 1:
            raise ValueError(f"{where}: found {right} right choices; expected one")
        if any("\n" in choice["text"].strip() for choice in choices):
            raise ValueError(f"{where}: found a choice of several lines; expected one")
        questions.append(
            Question(
                entry["text"].strip(),
                tuple(Choice(c["text"].strip(), c["why"].strip(), bool(c.get("right"))) for c in choices),
            )
        )
    if not questions:
        raise ValueError(f"{path.name}: found no question")
    return questions


def quiz_markdown(questions: list[Question]) -> str:
    """A quiz as MyST Markdown: a heading, and for each question a group of drop-downs."""
    parts = [
        f"## {TITLE}\n\n{len(questions)} questions. Open the answer that you would give: right or wrong, it says why.",
        ":::::::{div} quiz",
    ]
    for number, question in enumerate(questions, start=1):
        parts += ["::::::{div} quiz-question", f"**{number}.** {question.text}"]
        for choice in question.choices:
            kind, verdict = ("quiz-right", "Right.") if choice.right else ("quiz-wrong", "No.")
            head = f":::::{{dropdown}} {choice.text}\n:class-container: quiz-choice {kind}"
            parts.append(f"{head}\n\n**{verdict}** {choice.why}\n:::::")
        parts.append("::::::")
    return "\n\n".join([*parts, ":::::::"])
