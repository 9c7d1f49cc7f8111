# Draws story outlines from outlines.txt: a topic, a hero, a friend, a place and things, then one way to tell each beat.
# An outline is a list of units: fixed text, or the start of a sentence that the teacher finishes (Unit.open).
import dataclasses
import pathlib
import random
import re

GIRLS = """Anna Lily Mia Lucy Emma Ella Sara Rosie Nora Ruby Zoe Daisy Ivy Molly Clara Hazel Alice Poppy Maya Kate Grace Penny Amy
Jane Nina Tess Bella Sophie Lola Julia Mei Aisha Yuki Ines Freya Leila Tilly Coco Pepper Willow Olive Mimi Kiki Honey Ginger
Misty Bonnie Dot Cleo Luna Stella Rosa Elsa Maria Fay Nell Wendy Heidi Pearl Polly Kitty""".split()
BOYS = """Ben Tom Sam Max Leo Jack Tim Finn Oscar Theo Henry Milo Hugo Felix Eli Noah Owen Luke Adam Nico Joe Dan Toby Will Rory
Charlie Peter Simon Omar Ravi Kofi Pablo Lars Amir Pip Bobo Bumble Biscuit Ollie Gus Bruno Rex Buttons Patches Teddy Muffin
Rusty Sandy Hopper Flip Waddles Nibbles Fluffy Sunny Spot Ted Bob Otto Fred Jim Paul Walter Ned Ali Carlo Ivan""".split()
ANIMALS = """rabbit fox bear mouse cat dog duck owl frog turtle squirrel hedgehog elephant lion monkey bird pig sheep goat horse
donkey cow hen goose penguin snail bee wolf deer mole beaver otter kitten puppy dragon robot giraffe panda tiger parrot crow lamb
pony caterpillar bat toad chick bear rabbit mouse cat dog fox frog duck""".split()
TRAITS = """little little little small young brave shy curious kind happy clever silly sleepy quiet playful careful grumpy
cheerful tiny friendly funny gentle""".split()
PLACES = {"forest": "in", "garden": "in", "farm": "on", "village": "in", "park": "in", "beach": "on", "river": "by", "lake": "by",
          "mountain": "on", "meadow": "in", "castle": "near", "island": "on", "pond": "by", "big city": "in", "jungle": "in",
          "woods": "in", "sea": "by", "valley": "in", "old mill": "near", "bridge": "near", "green hill": "on", "field": "in",
          "town": "in", "orchard": "in", "barn": "near", "lighthouse": "near", "desert": "in", "big tree": "near"}
COLORS = "red blue green yellow white brown purple orange golden old new little shiny soft".split()
THINGS = """ball hat kite doll bell book drum ring blanket whistle lamp scarf key basket cup boat train box flute mirror umbrella
coat bag feather stone shell spoon teddy car puzzle button coin""".split()
FOODS = """apples|a cake|a pie|some bread|honey|cookies|soup|berries|nuts|carrots|pancakes|cheese|pears|cherries|corn|a sandwich|
strawberries|plums|jam|grapes|muffins|milk and cookies|popcorn|oranges|bananas|peaches""".replace("\n", "").split("|")
HOBBIES = """sing|dance|run|climb trees|swim|play ball|read books|paint|look at the stars|fly kites|pick flowers|tell jokes|
play hide and seek|jump in puddles|make music|cook|build things|catch butterflies|tell stories|go fishing|play by the water|
collect shells|roll down the hill|draw pictures|help in the garden|watch the clouds|bake""".replace("\n", "").split("|")
SKILLS = "ride a bike|skate|climb a tree|jump over the stream|stand on one leg|ride a pony|jump rope|walk on a rope|ski|roll a hoop"
PARENTS = {"mother": "she", "mother": "she", "father": "he", "grandmother": "she", "grandfather": "he", "mom": "she", "dad": "he"}
FORMS = {"she": ("her", "her"), "he": ("him", "his")}
REQUESTS = ["Write a simple story for small children about {}.", "Tell me a short story about {}. Use easy words.",
            "Tell a little bedtime story about {}.", "Write a story about {} for a young child."]


@dataclasses.dataclass
class Unit:
    before: str  # white space between this unit and the one before
    text: str
    open: bool = False  # the teacher goes on from here to the end of the sentence
    close: str = ""  # what follows the finished sentence


def read_outlines(path=pathlib.Path(__file__).with_name("outlines.txt")):
    """{topic: [beat, ...]}, a beat being a list of lines."""
    outlines, topic = {}, None
    for block in path.read_text().split("\n\n"):
        lines = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if lines and lines[0].startswith("== "):
            topic = lines.pop(0)[3:]
            outlines[topic] = []
        if lines:
            outlines[topic].append(lines)
    return outlines


def article(phrase):
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def draw_person(rng, taken):
    girl = rng.random() < 0.5
    name = rng.choice([n for n in (GIRLS if girl else BOYS) if n != taken])
    noun = ("girl" if girl else "boy") if rng.random() < 0.3 else rng.choice(ANIMALS)
    return name, noun, "she" if girl else "he"


def draw_fields(rng):
    name, noun, he = draw_person(rng, "")
    friend, friend_noun, friend_he = draw_person(rng, name)
    while friend_noun == noun and noun not in ("boy", "girl"):
        friend, friend_noun, friend_he = draw_person(rng, name)
    (him, his), (fhim, fhis) = FORMS[he], FORMS[friend_he]
    trait, food = rng.choice(TRAITS), rng.choice(FOODS)
    where, preposition = rng.choice(list(PLACES.items()))
    thing = f"{rng.choice(COLORS)} {rng.choice(THINGS)}"
    animal = rng.choice([a for a in ANIMALS if a not in (noun, friend_noun)])
    parent, he_parent = rng.choice(list(PARENTS.items()))
    bare = re.sub(r"^(a|an|some) ", "", food)
    return dict(N=name, n=noun, t=trait, a=article(trait).split()[0], he=he, him=him, his=his, He=he.title(), His=his.title(),
                himself=him + "self", M=friend, m=friend_noun, fhe=friend_he, fhim=fhim, fhis=fhis, FHe=friend_he.title(),
                FHis=fhis.title(), fa_m=article(friend_noun).split()[0], place=f"{preposition} the {where}", where=f"the {where}", x=thing,
                ax=article(thing), food=bare, some_food=food if food != bare else f"some {food}", parent=parent, he_parent=he_parent,
                Parent=parent.title(), hobby=rng.choice(HOBBIES), skill=rng.choice(SKILLS.split("|")), animal=animal,
                an_animal=article(animal))


def units_of(line, fields, rng, chance):
    for fixed, teacher in re.findall(r"([^\[\]]+)|\[([^\[\]]+)\]", line):
        if fixed.strip():
            yield Unit(" ", fixed.strip().format(**fields))
        elif teacher and rng.random() < chance:
            start, close = teacher.split("~")
            yield Unit(" ", start.strip().format(**fields), True, close.strip())


def draw(outlines, rng, chance=0.85):
    """(request, fields, units) of one story."""
    topic = rng.choice([t for t in outlines if t != "OPENING"])
    fields = draw_fields(rng)
    units = []
    for index, beat in enumerate(outlines["OPENING"] + outlines[topic]):
        line = rng.choice(beat)
        new = list(units_of(line, fields, rng, chance)) if line != "." else []
        if new and units:
            new[0].before = "\n\n" if rng.random() < (0.6 if index == 2 else 0.2) else " "
        units += new
    units[0].before = ""
    return rng.choice(REQUESTS).format(topic), fields, units


if __name__ == "__main__":
    chooser, known = random.Random(1), read_outlines()
    for _ in range(4):
        print("".join(u.before + u.text + (" ~" + u.close if u.open else "") for u in draw(known, chooser)[2]), "\n---")
