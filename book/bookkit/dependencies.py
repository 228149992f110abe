"""What a chapter's outputs depend on: the code of its cells, the modules that it reaches, and the files they read.

They are found without running anything, from the syntax trees of the cells and of the package:

* every ``import`` is followed, wherever it is: at the top, inside a function, or under ``TYPE_CHECKING`` (except in a
  package that loads its names on first use); a module depends on the ``__init__`` files of the packages above it;
* a string that names a module of the package (``"twodasl_lite.apps.cli"``) counts as an import of it, which covers
  ``importlib.import_module`` and ``python -m`` in a subprocess;
* a package that loads its names on first use (a dictionary from names to modules beside a ``__getattr__``) contributes
  the modules of the names that are used; if these cannot be determined, all of its modules;
* an import whose target is assembled at run time brings in the whole package;
* a data file counts if a reached package contains it and reached code names the file, its suffix or its folder.

Docstrings and comments do not change outputs and are not part of the dependencies. Code that could show them
(``__doc__``, `inspect`, ``help``, a cell that is meant to fail and shows a traceback) is compared character by
character, and so is everything that it reaches.

Dependencies that this analysis misses are seen when the chapter runs: `WATCH` is a start-up script for the kernel that
records each file of the package that is opened, and `bookkit.execute` adds unforeseen files to the record of the run.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

SHOWS_SOURCE = {"__doc__", "getdoc", "getsource", "getsourcelines", "getcomments", "help", "pinfo", "doctest"}
OPENS_OWN_FILES = {"files", "__file__", "__package__"}
LISTS_FOLDERS = {"glob", "iglob", "rglob", "iterdir", "listdir", "scandir", "walk"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SHORTEST_NAME = 4  # least length of a string that may be part of a file name, such as ".csv"

WATCH = """\
import os as _os, sys as _sys

def _watch(event, arguments, _seen=set(), _os=_os):
    if event != "open" or not isinstance(arguments[0], str):
        return
    path = _os.path.abspath(arguments[0])
    if path.startswith({package!r}) and path not in _seen:
        _seen.add(path)
        descriptor = _os.open({log!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT)
        _os.write(descriptor, (path + "\\n").encode())
        _os.close(descriptor)

_sys.addaudithook(_watch)
del _watch, _os, _sys
"""


def watch_script(package: Path, log: Path) -> str:
    """A start-up script that writes the name of each opened file of ``package`` to ``log``, once per file."""
    return WATCH.format(package=f"{package.resolve()}/".replace("//", "/"), log=str(log))


def watched_files(log: Path, package: Path) -> set[Path]:
    """The files that a watched kernel opened; a module's compiled form counts as the module."""
    found = set()
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        path = Path(line)
        if path.parent.name == "__pycache__":
            path = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        if path.is_file() and package.resolve() in path.parents:
            found.add(package / path.relative_to(package.resolve()))
    return found


@dataclass(frozen=True)
class Unit:
    """References of one piece of code (a module, or a chapter's cells) to other code.

    Attributes:
        imports: Dotted names of its imports, ``package.module.name`` for ``from package.module import name``.
        aliases: Local names of imported objects: ``{"viz": "twodasl_lite.viz"}``.
        attributes: Attributes accessed on each name; includes ``None`` if the name is used in any other way.
        strings: All strings of the code, including parts of f-strings.
        names: All identifiers and attributes.
        built: Whether it imports a module whose name is assembled at run time.
        homes: For a package that loads names on first use, the module of each name.
    """

    imports: frozenset[str]
    aliases: dict[str, str]
    attributes: dict[str, set[str | None]]
    strings: frozenset[str]
    names: frozenset[str]
    built: bool
    homes: dict[str, str] = field(default_factory=dict)


def read_code(tree: ast.AST, package: str = "") -> Unit:
    """Read one piece of code.

    Args:
        tree: Syntax tree of the code.
        package: Dotted name of the package that contains it, to resolve relative imports.
    """
    imports, aliases, strings, names = set(), {}, set(), set()
    attributes: dict[str, set[str | None]] = {}
    homes = _lazy_homes(tree)
    if homes:  # what it shows to type checkers is what it loads on first use
        tree = ast.Module([node for node in tree.body if not _is_for_type_checkers(node)], [])
    documentation = {id(node.value) for node in _docstrings(tree)}
    owned: set[int] = set()
    built = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.add(alias.name)
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            imports.add(base)
            for alias in node.names:
                imports.add(f"{base}.{alias.name}")
                aliases[alias.asname or alias.name] = f"{base}.{alias.name}"
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
            if isinstance(node.value, ast.Name):
                owned.add(id(node.value))
                attributes.setdefault(node.value.id, set()).add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            strings.add(node.value)
        elif isinstance(node, ast.Call):
            built |= _builds_an_import(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in owned:
            attributes.setdefault(node.id, set()).add(None)
    return Unit(frozenset(imports), aliases, attributes, frozenset(strings), frozenset(names), built, homes)


def _docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """The statements that consist of a string: docstrings, and strings that document the assignment above them."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            for statement in node.body:
                value = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield statement


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _builds_an_import(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in {"import_module", "__import__", "run_module"} or not call.args:
        return False
    target = call.args[0]
    # A plain name gets its value from code that names the module in a string, which counts as an import there.
    return not isinstance(target, ast.Constant | ast.Name) or (
        isinstance(target, ast.Constant) and str(target.value).startswith(".")
    )


def _lazy_homes(tree: ast.AST) -> dict[str, str]:
    """The dictionary from names to modules of a package with a ``__getattr__``; empty if it has none."""
    body = getattr(tree, "body", [])
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body):
        return {}
    for node in body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict):
            try:
                homes = ast.literal_eval(value)
            except ValueError:
                continue
            if homes and all(isinstance(part, str) for pair in homes.items() for part in pair):
                return homes
    return {}


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_digest(text: str) -> str:
    """A hash of a module's behaviour: of its syntax tree without docstrings."""
    return _digest(ast.dump(_without_docstrings(ast.parse(text))))


def cell_digest(source: str) -> str:
    """A hash of what a cell does and shows; of its complete text if it contains IPython magics."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return text_digest(source)
    silent = source.rstrip().endswith(";")  # in this case IPython shows no value
    # A string alone at the end of a cell is a value to show, not a docstring, so strings of the cell itself are kept.
    for node in tree.body:
        _without_docstrings(node)
    return _digest(f"{silent} {ast.dump(tree)}")


def text_digest(text: str) -> str:
    """A hash of the complete text."""
    return _digest(f"text {text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _without_docstrings(tree: ast.AST) -> ast.AST:
    drop = {id(statement) for statement in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            kept = [statement for statement in node.body if id(statement) not in drop]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


class Package:
    """The sources and data of the package, read once.

    Args:
        folder: Folder of the package, with the package's name.
        apart: Folders on which no chapter depends, even if code names them.
    """

    def __init__(self, folder: Path, apart: Iterable[str] = ()) -> None:
        self.folder, self.name = folder, folder.name
        out = {"__pycache__", *apart}
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not out & set(p.relative_to(folder).parts))
        self.modules: dict[str, Path] = {}
        self.data: list[Path] = []
        for path in files:
            if path.suffix == ".py" and (path.parent / "__init__.py").exists():
                parts = (self.name, *path.relative_to(folder).with_suffix("").parts)
                self.modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
            else:
                self.data.append(path)
        self._units: dict[str, Unit] = {}

    def unit(self, module: str) -> Unit:
        """The references of a module."""
        if module not in self._units:
            path = self.modules[module]
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            self._units[module] = read_code(ast.parse(path.read_text(encoding="utf-8")), package)
        return self._units[module]

    def _direct(self, unit: Unit, module: str = "") -> set[str]:
        """The modules that a piece of code reaches in one step; all modules if this cannot be determined."""
        found: set[str] = set()
        if unit.built and not unit.homes:
            return set(self.modules)
        for name in unit.imports:
            if name != self.name and not name.startswith(f"{self.name}."):
                continue
            base, _, last = name.rpartition(".")
            if name in self.modules:
                found.add(name)
            elif base in self.modules and (last == "*" or self._lazy(base)):
                found |= {base, *self._of_name(base, last)}
            else:
                while name and name not in self.modules:
                    name = name.rpartition(".")[0]
                found |= {name} if name else set()
        for alias, target in unit.aliases.items():
            if self._lazy(target):
                for attribute in unit.attributes.get(alias, set()):
                    found |= self._of_name(target, attribute)
        for text in unit.strings:
            if text in self.modules and "." in text:
                found.add(text)
            elif text.startswith(self.name) and text.endswith(".") and text[:-1] in self.modules:
                found |= {other for other in self.modules if other.startswith(text)}
            elif "import" in text and self.name in text:
                found |= self._direct(_parsed(text))  # a program for a subprocess
        found.discard(module)
        return found

    def _lazy(self, module: str) -> bool:
        return module in self.modules and bool(self.unit(module).homes)

    def _of_name(self, module: str, name: str | None) -> set[str]:
        """The modules to which a package's name leads; all possible ones if the name is unknown."""
        homes = self.unit(module).homes
        wanted = [homes[name]] if name in homes else [] if name and name != "*" else list(homes.values())
        found = set()
        for home in wanted:
            full = home if home in self.modules else f"{module}.{home.lstrip('.').partition(':')[0]}"
            found |= {full} if full in self.modules else set(self.modules)
        if not wanted and name and f"{module}.{name}" in self.modules:
            found.add(f"{module}.{name}")
        return found

    def reached(self, unit: Unit) -> set[str]:
        """All modules that a piece of code reaches, with the packages above them."""
        found: set[str] = set()
        ahead = self._direct(unit)
        while ahead:
            module = ahead.pop()
            if module in found:
                continue
            found.add(module)
            above = module.rpartition(".")[0]
            ahead |= (self._direct(self.unit(module), module) | ({above} if above else set())) - found
        return found

    def data_of(self, unit: Unit, modules: set[str]) -> set[Path]:
        """The data files that a piece of code and the modules it reaches may read."""
        units = [unit, *(self.unit(module) for module in modules)]
        pieces = {part for each in units for part in _path_parts(each.strings)}
        # File names are searched for in the code that opens files of the package.
        openers = [each for each in units if each.names & OPENS_OWN_FILES or "assets" in each.strings]
        names = {part for each in openers for part in _path_parts(each.strings) if len(part) >= SHORTEST_NAME}
        lists = any(each.names & LISTS_FOLDERS and "assets" in each.strings for each in openers)
        reached = {self.modules[module].parent for module in modules if self.modules[module].name == "__init__.py"}
        found = set()
        for path in self.data:
            home = path.parent
            while not (home / "__init__.py").exists():
                home = home.parent
            if home not in reached:
                continue
            folders = set(path.relative_to(home).parts[:-1])
            beside = not folders and home != self.folder  # files of the package itself, next to its code
            named = any(name in path.name or path.stem in name for name in names)
            if beside or named or (folders - {"assets"}) & pieces or (lists and "assets" in folders):
                found.add(path)
        return found


def _path_parts(strings: Iterable[str]) -> set[str]:
    return {part for text in strings for part in text.replace("\\", "/").split("/") if part}


@lru_cache(maxsize=256)
def _parsed(text: str) -> Unit:
    """A program in a string; one that cannot be parsed may import anything."""
    try:
        return read_code(ast.parse(text))
    except SyntaxError:
        return Unit(frozenset(), {}, {}, frozenset(), frozenset(), "import_module" in text)


def parse_cells(cells: Iterable[str]) -> Unit:
    """All cells of a chapter as one piece of code; a cell with IPython's magics is read line by line."""
    body: list[ast.stmt] = []
    for source in cells:
        try:
            body += ast.parse(source).body
            continue
        except SyntaxError:
            pass
        for line in source.splitlines():
            text = line.strip()
            words: list[ast.expr] = [ast.Constant(word) for word in text.split()]
            if text.startswith("?") or text.endswith("?"):
                words.append(ast.Name("help", ast.Load()))
            body.append(ast.Expr(ast.List([*words, ast.Constant(text)], ast.Load())))
            for code in (text, text.lstrip("%!").partition(" ")[2]):
                try:
                    body += ast.parse(code).body
                    break
                except SyntaxError:
                    continue
    return read_code(ast.Module(body, []))


def shows_source(unit: Unit) -> bool:
    """Whether code might print documentation or source of what it uses."""
    return bool(unit.names & SHOWS_SOURCE)
