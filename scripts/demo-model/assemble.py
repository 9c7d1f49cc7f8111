# Joins outlines and the teacher's sentences into stories. A sentence stays only if it is plain, short, made of common words,
# names nobody new, does not repeat itself or the story; the outline stands without it. Then near copies are dropped.
# Usage: assemble.py gaps.jsonl stories.jsonl [--seed 0]      writes one JSON string a line; counts beside it
import argparse
import collections
import json
import random
import re
import zlib
from concurrent.futures import ProcessPoolExecutor

from outlines import ANIMALS, BOYS, GIRLS, draw, read_outlines

WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
STRANGERS = set(ANIMALS) | {"boy", "girl", "frog", "man", "woman", "people", "group", "guy"}
PRONOUNS = {"He", "She", "His", "Her", "It", "They", "In"}
NOT_CHILDLIKE = re.compile(r"\b(story|stories|child|children|sex\w*|kill\w*|dead|die[ds]?|blood\w*|gun|drunk|beer|wine|drug\w*|naked|"
                           r"hell|god|jesus|stupid|hate[ds]?|idea of|able to be|world|life|lives|society|community|sense|journey|"
                           r"(?:slept|sleep|bed) with|moon|guy|leg|legs|belly|united|states?|american?|english|christmas|school year|years? old|husband|wife)\b", re.I)


def sentence(gap):
    """The gap's words up to its first full stop, or None."""
    match = re.match(r"[^.!?]*[.!?]", gap.replace("’", "'"))
    return match.group().strip() if match else None


def flaw(start, ending, known, common, people):
    """Why a finished sentence is not used, or None. known: word lists of the story's other sentences."""
    words = WORD.findall(ending)
    full = [w.lower() for w in WORD.findall(f"{start} {ending}")]
    if not 2 <= len(words) <= 9 or len(full) > 13:
        return "length"
    if re.search(r"^,|\b(said|says|thought|told|asked|replied|found it|dreamed)\b,?", ending):
        return "speech without quotes"
    if any(w in STRANGERS and w not in people for w in words):
        return "new animal"
    if any(w[0].isupper() and w.removesuffix("'s") not in people and w not in ("I", "I'm", "I'll", "I've") for w in words):
        return "new name"
    if NOT_CHILDLIKE.search(ending):
        return "word not for children"
    if any(w not in common for w in (w.lower().removesuffix("'s") for w in words)):
        return "rare word"
    content = [w for w in full if len(w) > 3]
    if len(set(content)) < len(content) or len(set(full)) < 0.75 * len(full):
        return "repeats itself"
    pairs = set(zip(full, full[1:], full[2:]))
    if any(len(pairs & other) > 0.4 * len(pairs) for other in known):
        return "repeats the story"
    if re.search(r"\b(a|an|the|and|or|to|of|with|for|was|is|very|so|his|her|my|your|in|at|on|but|not) ?[.!?,]", ending):
        return "breaks off"
    return None


def join(outlines, seed, number, gaps, common, reasons):
    """One story as text."""
    _, fields, units = draw(outlines, random.Random(f"{seed}:{number}"))
    if sum(u.open for u in units) != len(gaps):
        reasons["lost count"] += 1
        return None
    people, known, text, gaps = {fields[key] for key in ("N", "M", "n", "m", "animal")}, [], "", iter(gaps)
    for unit in units:
        piece = unit.text
        if unit.open:
            ending = sentence(next(gaps))
            reason = "no end" if ending is None else flaw(unit.text, ending, known, common, people)
            reason = "speech" if unit.close else reason  # what the teacher lets them say seldom fits
            reasons[reason or "kept"] += 1
            if reason:
                continue
            piece += (" " if ending[0].isalnum() else "") + ending + unit.close
        if "best friends" in text and "best friend was" in piece:
            continue  # the opening has told it
        words = [w.lower() for w in WORD.findall(piece)]
        known.append(set(zip(words, words[1:], words[2:])))
        text += (unit.before if text else "") + piece
    return vary_opening(text, random.Random(number))


def vary_opening(text, rng):
    """Some stories begin otherwise, so that the model takes other first words too."""
    chance = rng.random()
    plain = re.sub(r"^(Once upon a time|Long, long ago|Long ago), ", "", text)
    if chance < 0.12 and plain != text:
        return plain[0].upper() + plain[1:]
    rest = re.sub(r"^[^.\"]*\.\s+", "", text)
    if chance > 0.92 and rest != text and rest[0].isupper() and rest.split()[0] not in PRONOUNS:
        return rest
    return text


def join_many(job):
    seed, lines, common = job
    outlines, reasons = read_outlines(), collections.Counter()
    stories = [join(outlines, seed, number, gaps, common, reasons) for number, gaps in map(json.loads, lines)]
    return [s for s in stories if s], reasons


def common_words(lines, size):
    """The words of the outlines and the `size` commonest of the teacher's."""
    counts = collections.Counter(w.lower().removesuffix("'s") for line in lines for w in WORD.findall(" ".join(json.loads(line)[1])))
    outlines = {w.lower() for beats in read_outlines().values() for beat in beats for line in beat for w in WORD.findall(line)}
    names = {n.lower() for n in GIRLS + BOYS}
    return {w for w, _ in counts.most_common(size)} | outlines | names


def is_copy(text, seen):
    words = text.lower().split()
    starts = [i for i in range(len(words) - 11) if words[i - 1][-1] in '.!?"']
    marks = [zlib.crc32(" ".join(words[i:i + 12]).encode()) for i in starts]
    known = sum(h in seen for h in marks)
    seen.update(marks)
    return known > 0.6 * max(1, len(marks))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=2500)
    parser.add_argument("--workers", type=int, default=16)
    options = parser.parse_args()
    with open(options.source) as file:
        lines = file.readlines()
    common = common_words(lines[:100_000], options.vocabulary)
    jobs = [(options.seed, lines[first:first + 4000], common) for first in range(0, len(lines), 4000)]
    reasons, stories = collections.Counter(), []
    with ProcessPoolExecutor(options.workers) as pool:
        for part, counts in pool.map(join_many, jobs):
            stories += part
            reasons += counts
    seen = set()
    unique = [text for text in stories if not is_copy(text, seen)]
    with open(options.output, "w") as file:
        file.writelines(json.dumps(text) + "\n" for text in unique)
    words = sum(len(text.split()) for text in unique)
    with open(f"{options.output}.counts", "w") as file:
        json.dump({"kept": reasons["kept"], "written": reasons.total() - reasons["lost count"]}, file)
    print(f"{len(lines)} read, {len(unique)} kept, {words} words; sentences:", ", ".join(f"{k} {v}" for k, v in reasons.most_common()))


if __name__ == "__main__":
    main()
