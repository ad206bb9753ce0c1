"""Group near-duplicates (by the union of several criteria) and split the groups 70/10/20."""

import hashlib
from collections import Counter, defaultdict

from common import read_json, write_json
from families import family_of

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
# Larger families (clock faces, colored squares, arrows) go to training: held out, they would be a tenth of the test
# set and measure how well squares can be told apart.
LARGEST_HELD_OUT = 12


class Union:
    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = sorted((self.find(i), self.find(j)))
        self.parent[j] = i


def reasons(item: dict) -> list[tuple[str, str]]:
    """Return the keys by which near-duplicates are found; items with a common key belong to the same group."""
    found = [
        ("family", family_of(item["name"], item["subgroup"], item["label"])),
        ("name", item["name"].lower()),
        ("image", item["image_sha256"]),
        ("drawing", item["drawing_sha256"]),
    ]
    if item["keywords"]:
        found.append(("keywords", item["keywords"].lower()))
    return found


def candidates(labels: Counter, have: dict[str, Counter], target: Counter) -> list[tuple[str, float]]:
    """Return (part, shortfall of its labels) for each part that may take a group with these labels."""
    found = []
    for part, share in SHARES.items():
        # A group larger than the remaining room of a small part would unbalance it, and goes to training as well.
        room = all(have[part][label] + n <= share * target[label] + 1 for label, n in labels.items())
        if part == "train" or (labels.total() <= LARGEST_HELD_OUT and room):
            missing = sum(n * (1 - have[part][label] / (share * target[label])) for label, n in labels.items())
            found.append((part, missing / labels.total()))
    return found


def split_groups(items: list[dict], group: list[int]) -> list[str]:
    """Assign groups, largest first, then by hash, to the part whose labels are furthest below their target."""
    members = defaultdict(list)
    for row, number in enumerate(group):
        members[number].append(row)
    target = Counter(item["label"] for item in items)
    have: dict[str, Counter] = {name: Counter() for name in SHARES}
    split = [""] * len(items)

    def order(number: int) -> tuple[int, str]:
        return -len(members[number]), hashlib.sha256(items[members[number][0]]["key"].encode()).hexdigest()

    for number in sorted(members, key=order):
        labels = Counter(items[row]["label"] for row in members[number])
        best = max(candidates(labels, have, target), key=lambda pair: pair[1])[0]
        have[best].update(labels)
        for row in members[number]:
            split[row] = best
    return split


def main() -> None:
    items = read_json("items_with_pictures.json")
    union, first = Union(len(items)), {}
    for row, item in enumerate(items):
        for reason in reasons(item):
            union.join(row, first.setdefault(reason, row))
    roots = [union.find(row) for row in range(len(items))]
    number = {root: i for i, root in enumerate(sorted(set(roots)))}
    group = [number[root] for root in roots]
    split = split_groups(items, group)
    write_json("groups.json", {"group": group, "split": split})

    sizes = Counter(group)
    print(len(sizes), "groups; largest", [n for _, n in sizes.most_common(8)])
    print(Counter(split), {s: len({g for g, t in zip(group, split, strict=True) if t == s}) for s in SHARES})
    for label in dict.fromkeys(item["label"] for item in items):
        rows = Counter(s for s, item in zip(split, items, strict=True) if item["label"] == label)
        print(f"  {label:18}", dict(rows))


if __name__ == "__main__":
    main()
