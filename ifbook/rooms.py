"""The picture of which room imports which, made from the imports: `python -m ifbook.rooms`.

It stands in CONTRIBUTING.md between two marks; --write puts it there anew.
"""

import argparse
from pathlib import Path

import grimp

MARKS = "<!-- rooms: made by python -m ifbook.rooms --write -->\n", "<!-- rooms end -->"
PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def imports(package="ifcore"):
    """{room: the rooms that it imports itself}, each room with all that is in it."""
    graph, found = grimp.build_graph(package), {}
    rooms = graph.find_children(package)
    for room in rooms:
        inside = {room} | graph.find_descendants(room)
        every = {name for part in inside for name in graph.find_modules_directly_imported_by(part)}
        found[room] = {
            other for other in rooms if every & ({other} | graph.find_descendants(other))
        }
        found[room].discard(room)
    short = {room: room.removeprefix(f"{package}.") for room in rooms}
    return {short[room]: {short[other] for other in others} for room, others in found.items()}


def order(found):
    """The rooms, each behind all that it imports."""
    rest, out = dict(sorted(found.items())), []
    while rest:
        room = next((room for room, others in rest.items() if others <= set(out)), None)
        if room is None:
            raise ValueError(f"the rooms {', '.join(rest)} import each other in a circle")
        out.append(room)
        rest.pop(room)
    return out


def picture(found):
    """A table: a row a room, a dot under each room that it imports."""
    rooms = order(found)
    head = f"{'':16}" + " ".join(f"{i:2}" for i in range(1, len(rooms) + 1))
    lines = [head]
    for i, room in enumerate(rooms, 1):
        cells = " ".join(" •" if other in found[room] else "  " for other in rooms[: i - 1])
        lines.append(f"{i:2} {room:13}{cells}".rstrip())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    made = picture(imports())
    if not arguments.write:
        print(made, end="")
        return
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    PAGE.write_text(before + MARKS[0] + made + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")


if __name__ == "__main__":
    main()
