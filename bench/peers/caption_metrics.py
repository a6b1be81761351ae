"""The COCO caption evaluation as a peer: what it makes of our stored captions, and of random ones.

    pip install pycocoevalcap==1.2      # in an environment of its own; Java must be on the path
    PYTHONPATH=src python bench/peers/caption_metrics.py            # compare the stored answers and ours with the peer
    PYTHONPATH=src python bench/peers/caption_metrics.py --lines 5000 --seed 1   # tokenise random hard lines too
    PYTHONPATH=src python bench/peers/caption_metrics.py --write    # store the peer's answers anew

The captions are read from ``tests/golden/metrics/``, where the answers are kept beside them.
"""

import argparse
import contextlib
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from aural.metrics.bleu import bleu
from aural.metrics.cider_d import cider_d
from aural.metrics.ptb_tokenizer import tokenize
from aural.metrics.rouge_l import rouge_l

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "metrics"
NEXT = "next"
"""A line after each sentence: the peer looks over the end of a line, and a capital there can change the word before."""

HARD = r"""
a the dog birds chirp bark barking while in background man woman speaks rain falling car engine hums and with it's
don't can't man's dogs' cannot isn't gonna wanna high-pitched low-frequency mother-in-law's beep-beep-beep 5 10 1990s
2nd 3.5 1,000 100% 5-10 10:30 p.m. a.m. Mr. Mrs. Dr. etc. e.g. i.e. vs. U.S. St. TV No. Co. Inc. Jr. Jan. approx. hz
44.1kHz 20Hz $5 £20 50% 1/2 and/or w/ (loudly) (a [music] "hello" 'hi' “wow” ‘ok’ it’s — – - -- ... … ! !! ? ?! ; : ,
. & + # * / o'clock rock'n'roll 'cause 'em '90s 80's café naïve BEEP A I. plan B. www.freesound.org http://a.bc/d
x@y.com @user #tag :) :D <b> </b> 😀 ♪ ~ = _ | \ T.V. 'tis tick-tock dog.Then bird). birds', bird." 10s 10sec. 5ft 6'2"
20°C 5kg ½ 1½ km/h x2 2x ,and .5 -5 ma'am d'oh O'Brien d'être l'eau c'est C# C++ R&B rock&roll un- re-re mp3 file.wav
a/b/c 24/7 9/11 1/2/2003 555-1234 '80s —the the–the o' ol' 'til
"""
JOINTS = [" "] * 20 + ["  ", "", ",", ".", "-", "/", "'", '"', "(", ")", "...", "!", "?", ":", ";", "’", "—", "&", "\t"]


def random_lines(n: int, seed: int) -> list[str]:
    """Lines such as no caption has: hard words, joined in hard ways."""
    draw, hard = random.Random(seed), HARD.split()
    lines = []
    for _ in range(n):
        words = draw.choices(hard, k=draw.randint(1, 14))
        words = [draw.choices([word, word.capitalize(), word.upper()], [17, 2, 1])[0] for word in words]
        lines.append("".join(word + draw.choice(JOINTS) for word in words))
    return lines


def peer_tokens(sentences: list[str]) -> list[list[str]]:
    """The peer's words of each sentence."""
    lines = [{"caption": line} for sentence in sentences for line in (sentence, NEXT)]
    answers = PTBTokenizer().tokenize({"all": lines})["all"][::2]
    return [answer.split(" ") if answer else [] for answer in answers]


def peer_scores(candidates: list[str], references: list[list[str]]) -> dict[str, dict[str, Any]]:
    """Metric -> corpus score and score per item."""
    given = {i: [{"caption": caption}] for i, caption in enumerate(candidates)}
    wanted = {i: [{"caption": caption} for caption in those] for i, those in enumerate(references)}
    result, truth = PTBTokenizer().tokenize(given), PTBTokenizer().tokenize(wanted)
    with contextlib.redirect_stdout(io.StringIO()):
        corpora, items = Bleu(4).compute_score(truth, result)
    scores = {f"bleu_{n + 1}": (corpora[n], items[n]) for n in range(4)}
    scores["rouge_l"] = Rouge().compute_score(truth, result)
    scores["cider_d"] = Cider().compute_score(truth, result)
    return {name: {"corpus": float(c), "per_item": [float(i) for i in each]} for name, (c, each) in scores.items()}


def our_scores(candidates: list[str], references: list[list[str]]) -> dict[str, dict[str, Any]]:
    """The same of ours."""
    words = [tokenize(caption) for caption in candidates]
    others = [[tokenize(caption) for caption in those] for those in references]
    scores = {f"bleu_{n}": score for n, score in enumerate(bleu(words, others), start=1)}
    scores |= {"rouge_l": rouge_l(words, others), "cider_d": cider_d(words, others)}
    return {name: score._asdict() for name, score in scores.items()}


def distance(some: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]) -> float:
    """The largest difference of any two scores."""
    pairs = [
        pair
        for name, score in some.items()
        for pair in zip(
            [score["corpus"], *score["per_item"]], [others[name]["corpus"], *others[name]["per_item"]], strict=True
        )
    ]
    return max(abs(one - other) for one, other in pairs)


def main() -> int:
    """Compare or write; the exit status says whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the peer's answers")
    parser.add_argument("--lines", type=int, default=0, help="random lines to tokenise as well")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    path = FOLDER / "tokens.json"
    cases = json.loads(path.read_text(encoding="utf-8"))
    answers = peer_tokens(list(cases))
    wrong = [sentence for sentence, answer in zip(cases, answers, strict=True) if tokenize(sentence) != answer]
    stale = [sentence for sentence, answer in zip(cases, answers, strict=True) if cases[sentence] != answer]
    print(f"tokens: {len(cases)} stored sentences, {len(wrong)} where ours differ, {len(stale)} stored otherwise")
    for sentence in wrong:
        print(f"  {sentence!r}")
    if options.write:
        lines = [
            f"{json.dumps(sentence, ensure_ascii=False)}: {json.dumps(answer, ensure_ascii=False)}"
            for sentence, answer in zip(cases, answers, strict=True)
        ]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    path = FOLDER / "scores.json"
    sets = json.loads(path.read_text(encoding="utf-8"))
    worst = 0.0
    for name, one in sets.items():
        peer = peer_scores(one["candidates"], one["references"])
        apart = distance(our_scores(one["candidates"], one["references"]), peer)
        worst = max(worst, apart)
        print(f"{name}: {len(one['candidates'])} items, largest difference {apart:.1e}")
        one["expected"] = peer
    if options.write:
        path.write_text(json.dumps(sets, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    if options.lines:
        lines = random_lines(options.lines, options.seed)
        differ = [line for line, answer in zip(lines, peer_tokens(lines), strict=True) if tokenize(line) != answer]
        print(f"random: {len(lines)} lines, {len(differ)} where ours differ")
        for line in differ[:20]:
            print(f"  {line!r}")
    return int(bool(wrong) or worst > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
