"""What the tests of constrained output share: JSON as lines, the order of keys, and a driver in C that answers line by line."""
import decimal
import json
import os
import signal
import subprocess
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def text(value):
    """JSON as one line of text without tabs, ", " and ": " between."""
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value)
    return line


class Doubled(ValueError):
    """An object has two members of one name."""

    def __init__(self, name):
        super().__init__(f"two members {text(name)}")
        self.name = name


def pairs(members):
    """The members of an object."""
    out = {}
    for name, value in members:
        if name in out:
            raise Doubled(name)
        out[name] = value
    return out


def exact(line):
    """The value of a JSON text: numbers as they are written, no name twice."""
    return json.loads(line, parse_float=decimal.Decimal, object_pairs_hook=pairs)


# ---- The order of keys -----------------------------------------------------------------------------------

def _target(root, pointer):
    """What a reference within the document names, or None."""
    if not pointer.startswith("#"):
        return None
    node, path = root, pointer[1:].strip("/")
    for step in path.split("/") if path else []:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node


def _collect(root, schema, found, known):
    """Append to found the schemas that hold where this one does: itself, then those below in the order of the text."""
    if not isinstance(schema, dict) or id(schema) in known:
        return
    known.add(id(schema))
    found.append(schema)
    for keyword, value in schema.items():
        below = []
        if keyword in ("$ref", "$dynamicRef") and isinstance(value, str):
            below = [_target(root, value)]
        elif keyword in ("allOf", "anyOf", "oneOf") and isinstance(value, list):
            below = value
        elif keyword in ("if", "then", "else"):
            below = [value]
        elif keyword in ("dependentSchemas", "dependencies") and isinstance(value, dict):
            below = value.values()
        for s in below:
            _collect(root, s, found, known)


def _order(root, schemas, value):
    found, known = [], set()
    for s in schemas:
        _collect(root, s, found, known)
    declared = [s["properties"] if isinstance(s.get("properties"), dict) else {} for s in found]
    if isinstance(value, dict):
        place = {}
        for names in declared:
            for name in names:
                place.setdefault(name, len(place))
        out = {}
        for name in sorted(value, key=lambda k: place.get(k, len(place))):
            below = []
            for s, names in zip(found, declared, strict=True):
                if name in names:
                    below.append(names[name])
                elif isinstance(s.get("additionalProperties"), dict):
                    below.append(s["additionalProperties"])
                if isinstance(s.get("patternProperties"), dict):
                    below.extend(s["patternProperties"].values())
            out[name] = _order(root, below, value[name])
        return out
    if isinstance(value, list):
        out = []
        for i, item in enumerate(value):
            below = []
            for s in found:
                items = s.get("items")
                first = s.get("prefixItems", items if isinstance(items, list) else None)
                if isinstance(first, list) and i < len(first):
                    below.append(first[i])
                elif isinstance(items, dict):
                    below.append(items)
                elif isinstance(s.get("additionalItems"), dict):
                    below.append(s["additionalItems"])
            out.append(_order(root, below, item))
        return out
    return value


def ordered(schema, value):
    """The value with the keys of its objects in the order in which the schema first names them; others stand last."""
    return _order(schema, [schema], value)


# ---- A driver, one process after another ---------------------------------------------------------------------

class Driver:
    """A filter that answers each line with one of JSON. When a line ends it, the next one gets a new process."""

    def __init__(self, command, begins=False, seconds=120):
        """begins: it says something first, which is kept; seconds: of the clock, for a line."""
        self.command, self.begins, self.seconds, self.process, self.first = command, begins, seconds, None, None

    def ask(self, line):
        """The answer, or {"ended": why, "is_timeout": bool}."""
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
            if self.begins:
                self.first = json.loads(self.process.stdout.readline())
        clock = threading.Timer(self.seconds, self.process.kill)
        clock.start()
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        clock.cancel()
        if answer.endswith(b"\n"):
            return json.loads(answer)
        rc = self.close()
        name = signal.Signals(-rc).name if rc < 0 else f"exit status {rc}"
        return {"ended": name, "is_timeout": -rc in (signal.SIGPROF, signal.SIGKILL)}

    def close(self):
        process, self.process = self.process, None
        if process is None:
            return 0
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdout.close()
        return process.wait()
