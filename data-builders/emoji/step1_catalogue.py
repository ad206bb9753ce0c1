"""Select the concepts and collect their texts: names, keywords, names in twelve languages, Unicode group."""

import json
import re
from xml.etree import ElementTree

from common import CLDR, EMOJI_TEST, FLUENT_3D, FLUENT_FLAT, LANGUAGES, has_skin_tone, key_of, words_of, write_json


def annotations(language: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return (name by key, keywords by key) of one locale: first the base file, then the derived file (sequences)."""
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for folder in ("annotations", "annotationsDerived"):
        for node in ElementTree.parse(CLDR / folder / f"{language}.xml").iter("annotation"):
            key, value = key_of(node.attrib["cp"]), (node.text or "").strip()
            if value in ("", "↑↑↑"):  # "inherit from the parent locale"
                continue
            if node.attrib.get("type") == "tts":
                names.setdefault(key, value)
            else:
                keywords.setdefault(key, [part.strip() for part in value.split("|")])
    return names, keywords


def unicode_groups() -> dict[str, tuple[int, str, str]]:
    """Return key -> (order, group, subgroup)."""
    found: dict[str, tuple[int, str, str]] = {}
    group = subgroup = ""
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif line and not line.startswith("#"):
            points = [chr(int(p, 16)) for p in line.split(";")[0].split()]
            found.setdefault(key_of("".join(points)), (len(found), group, subgroup))
    return found


def without_name(keywords: list[str], name: str) -> str:
    """Remove every word of the name (also its regular plural or singular) from the keywords."""
    used = set(words_of(name))
    used |= {word + "s" for word in used} | {word.removesuffix("s") for word in used}
    kept: list[str] = []
    for keyword in keywords:
        rest = " ".join(w for w in re.split(r"[\s_–-]+", keyword) if not set(words_of(w)) & used)
        if words_of(rest) and rest.lower() not in (k.lower() for k in kept):
            kept.append(rest)
    return ", ".join(kept)


def main() -> None:
    groups = unicode_groups()
    fluent_3d = {"-".join(p for p in f.stem.split("-") if p != "fe0f"): f.name for f in FLUENT_3D.glob("*.webp")}
    flat = json.loads(FLUENT_FLAT.read_text(encoding="utf-8"))
    fluent_flat = {"-".join(p.zfill(4) for p in key.split("-") if p != "fe0f") for key in flat}
    names, keywords = annotations("en")
    foreign = {language: annotations(language)[0] for language in LANGUAGES}

    chosen = [k for k in groups if k in fluent_3d and k in fluent_flat and k in names and not has_skin_tone(k)]
    chosen.sort(key=lambda k: groups[k][0])
    items = []
    for key in chosen:
        missing = [language for language in LANGUAGES if key not in foreign[language]]
        if missing:
            print("no name:", key, names[key], missing)
        items.append(
            {
                "key": key,
                "name": names[key],
                "keywords": without_name(keywords.get(key, []), names[key]),
                "all_keywords": keywords.get(key, []),
                "names": {lang: foreign[lang].get(key) for lang in LANGUAGES},
                "label": groups[key][1],
                "subgroup": groups[key][2],
                "fluent_3d": fluent_3d[key],
            }
        )
    write_json("items.json", items)
    print(len(items), "concepts;", sum(not i["keywords"] for i in items), "without keywords")


if __name__ == "__main__":
    main()
