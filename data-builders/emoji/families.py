"""Group concepts that are variants of each other and must not be split between training and test.

`family_of` defines the rule for names; `step7_groups.py` also merges equal names, equal keywords and equal images.
Zodiac signs, animals, fruit and the like stay separate: they share a topic, but neither an image nor a name."""

import re

# Words in names of people that only select the variant.
GENDER_WORDS = {"man", "woman", "person", "men", "women", "people"}

# People whose variants have different words.
PEOPLE = {
    "prince": "crown",
    "princess": "crown",
    "person with crown": "crown",
    "merperson": "merperson",
    "merman": "merperson",
    "mermaid": "merperson",
    "Santa Claus": "claus",
    "Mrs. Claus": "claus",
    "mx claus": "claus",
    "boy": "child",
    "girl": "child",
    "child": "child",
    "older person": "old",
    "old man": "old",
    "old woman": "old",
    "breast-feeding": "feeding baby",
    "baby": "baby",
    "baby angel": "baby",
    "person mountain biking": "biking",
    "man mountain biking": "biking",
    "woman mountain biking": "biking",
    "bust in silhouette": "bust",
    "busts in silhouette": "bust",
}

# Unicode subgroups that consist of one image with different signs, or of one rotated drawing.
ONE_FAMILY_SUBGROUPS = {"arrow", "keycap", "cat-face", "monkey-face", "gender", "geometric"}

COLOR = "(red|orange|yellow|green|blue|purple|brown|black|white)"

# The first pattern that matches the whole name determines the family.
PATTERNS = [
    # time and sky
    ("clock face", r".* o’clock|.*-thirty"),
    ("moon phase", r"(new|full|.*crescent|.*quarter|.*gibbous) moon( face)?"),
    ("cloud", r"cloud.*|sun behind .*cloud"),
    ("sun", r"sun( with face)?"),
    ("star", r"(glowing )?star"),
    ("umbrella", r"(closed |beach with )?umbrella.*"),
    ("snowman", r"snowman.*"),
    ("globe", r"globe showing .*"),
    ("sunrise", r"sunrise.*|sunset|cityscape.*"),
    ("fog", r"fog(gy)?"),
    ("mountain", r"(snow-capped )?mountain|mount fuji"),
    # colored or repeated shapes
    ("heart", rf"({COLOR}|growing|beating|sparkling) heart|(revolving|two) hearts"),
    ("suit", r".* suit"),
    ("circle", r"hollow red circle"),
    ("star of David", r"star of David|dotted six-pointed star"),
    ("asterisk", r"eight-spoked asterisk|eight-pointed star|sparkle"),
    ("exclamation or question", r".*(exclamation|question) mark"),
    ("check mark", r"check .*"),
    ("cross mark", r"cross mark.*|multiply"),
    ("curly loop", r"(double )?curly loop"),
    (
        "triangle button",
        r"(play|fast-forward|next track|play or pause|reverse|fast reverse|last track|upwards|fast up"
        r"|downwards|fast down|pause|stop|record|eject) button",
    ),
    ("repeat button", r"repeat.* button"),
    ("brightness button", r"(dim|bright) button"),
    # letters and signs in a box
    ("Japanese button", r"Japanese “.*” button"),
    (
        "letters in a box",
        r"(A|AB|B|O) button \(blood type\)|(CL|COOL|FREE|ID|NEW|NG|OK|P|SOS|UP!|VS) button|circled M"
        r"|information|water closet|input .*",
    ),
    ("toilet sign", r"(men’s|women’s) room|restroom"),
    ("drinking water", r"potable water"),
    ("forbidden", r"no .*|prohibited|non-potable water"),
    ("airport sign", r"passport control|customs|baggage claim|left luggage"),
    ("medal", r"(1st|2nd|3rd) place medal|sports medal"),
    # hands
    ("pointing hand", r".*index pointing.*"),
    ("thumb", r"thumbs (up|down)"),
    ("fist", r".* fist"),
    ("flat hand", r"(rightwards|leftwards|palm down|palm up) hand"),
    ("raised hand", r"raised (back of )?hand|hand with fingers splayed|vulcan salute"),
    # faces with the same expression, or that differ only in the curve of the mouth
    ("angry face", r"(angry|enraged) face.*|smiling face with horns"),
    (
        "mouth only",
        r"(slightly )?(smiling|frowning) face.*|(neutral|confused|upside-down|kissing) face.*"
        r"|face without mouth|face with (diagonal mouth|open mouth|raised eyebrow)"
        r"|(grinning|beaming) face.*",
    ),
    ("tongue face", r".*face with tongue|winking face"),
    ("astonished face", r"(hushed|anguished|astonished|fearful|worried) face|anxious face.*"),
    ("crying face", r"(loudly )?crying face|sad but relieved face"),
    ("tired face", r"(weary|tired) face"),
    ("closed eyes", r"(relieved|pensive) face"),
    ("side glance", r"(smirking|unamused) face"),
    ("wet eyes", r"pleading face|face holding back tears"),
    ("hand over mouth", r"face with .*hand over mouth"),
    ("tears of joy", r"face with tears of joy|rolling on the floor laughing"),
    ("skull", r"skull.*"),
    ("bubble", r".*(bubble|balloon)"),
    ("eye", r"eyes?"),
    # animals
    ("cat", r"black cat|cat( face)?"),
    ("dog", r"(guide |service )?dog( face)?"),
    ("sheep", r"ram|ewe"),
    ("pig", r"pig( face| nose)?"),
    ("beetle", r"(lady )?beetle"),
    ("camel", r"(two-hump )?camel"),
    ("bear", r"(polar )?bear"),
    ("chick", r".* chick"),
    ("whale", r"(spouting )?whale"),
    ("dragon", r"dragon( face)?"),
    ("fish", r"(tropical )?fish"),
    ("nest", r"empty nest|nest with eggs"),
    ("spider", r"spider( web)?"),
    # food
    ("apple", r"(red|green) apple"),
    ("ice cream", r"(soft )?ice cream"),
    ("shrimp", r"(fried )?shrimp"),
    ("flatbread", r"(stuffed )?flatbread"),
    ("beer", r"beer mug|clinking beer mugs"),
    ("fork and knife", r"fork and knife.*"),
    # places and vehicles
    ("house", r"house(s| with garden)?"),
    ("post office", r"(Japanese )?post office"),
    ("hotel", r"(love )?hotel"),
    ("castle", r"(Japanese )?castle"),
    ("airplane", r"(small )?airplane( departure| arrival)?"),
    ("bus", r"(oncoming |trolley|mini)?bus"),
    ("police car", r"(oncoming )?police car"),
    ("taxi", r"(oncoming )?taxi"),
    ("automobile", r"(oncoming )?automobile"),
    ("fast train", r"(high-speed|bullet) train"),
    ("tram", r"tram( car)?"),
    ("wheelchair", r"(manual|motorized) wheelchair|wheelchair symbol"),
    ("scooter", r"(motor|kick) scooter"),
    ("traffic light", r"(horizontal|vertical) traffic light"),
    # objects
    ("hourglass", r"hourglass .*"),
    ("ticket", r"(admission )?tickets?"),
    ("speaker", r"(muted )?speaker.*"),
    ("bell", r"bell( with slash)?"),
    ("musical note", r"musical notes?"),
    ("microphone", r"(studio )?microphone"),
    ("mobile phone", r"mobile phone.*|vibration mode"),
    ("telephone", r"telephone( receiver)?"),
    ("battery", r"(low )?battery"),
    ("disk", r"(optical|computer|floppy) disk|dvd"),
    ("camera", r"((video|movie) )?camera.*"),
    ("drum", r"(long )?drum"),
    ("bathtub", r"bathtub"),
    ("magnifying glass", r"magnifying glass .*"),
    ("book", r"(closed|green|blue|orange|open) book|books"),
    ("notebook", r"notebook.*"),
    ("page", r"page .*"),
    ("newspaper", r"(rolled-up )?newspaper"),
    ("bookmark", r"bookmark( tabs)?"),
    ("banknote", r"(yen|dollar|euro|pound) banknote"),
    ("envelope", r"(incoming )?envelope( with arrow)?|e-mail"),
    ("tray", r"(outbox|inbox) tray"),
    ("mailbox", r".*mailbox.*"),
    ("pen", r"(fountain )?pen|black nib"),
    ("folder", r"(open )?file folder"),
    ("calendar", r".*calendar"),
    ("notepad", r"spiral notepad"),
    ("chart", r"chart .*"),
    ("pushpin", r"(round )?pushpin"),
    ("paperclip", r"(linked )?paperclips?"),
    ("ruler", r"(straight|triangular) ruler"),
    ("lock", r"(un)?locked.*"),
    ("key", r"(old )?key"),
    ("glasses", r"(sun)?glasses"),
    ("handbag", r"purse|handbag|clutch bag"),
    ("satellite", r"satellite( antenna)?"),
]


def family_of(name: str, subgroup: str, label: str) -> str:
    """Return the name of the family of variants; an item without variants is a separate family."""
    if label == "Flags":
        return "flag"
    if subgroup in ONE_FAMILY_SUBGROUPS:
        return f"all of {subgroup}"
    if subgroup == "family":
        return "family"
    if subgroup.startswith("person"):
        if name in PEOPLE:
            return f"people: {PEOPLE[name]}"
        # "man: beard", "person: bald" and plain "man" are one person with different hair.
        words = [word for word in name.split(":")[0].split() if word not in GENDER_WORDS]
        return f"people: {' '.join(words) or 'plain'}"
    for family, pattern in PATTERNS:
        if re.fullmatch(pattern, name):
            return family
    if subgroup.startswith("face"):
        # "kissing face with closed eyes" is a "kissing face", but "face with monocle" is more than a "face".
        base = name.split(" with ")[0]
        return f"face: {name if base == 'face' else base}"
    return f"name: {name.removesuffix(' face').lower()}"
