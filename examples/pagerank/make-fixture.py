#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write fixture.txt: synthetic Packages stanzas for machines without apt lists.

    python3 make-fixture.py > fixture.txt

Nothing of it is taken from an archive: names are made up from syllables, the
dependencies from a seeded generator in which a few packages are wanted by
nearly all, as in a real archive. The same seed gives the same file.
"""
import random

SECTIONS = """admin books cad clocks comm data debug devel docs drivers editors embedded extras fonts fun games
geo graphs help history hobby images kernel keys labs langs libs libsdev links lists locale mail maps math media
meta models music net news office old parsers perf phones physics print proofs radio safety scripts sensors shells
signals sound stats tasks text tools trees tv""".split()
SYLLABLES = "ba be bo da di du fa fe go ha ka ki la le lo ma mi mo na ne no pa pe ra ri ro sa se ta to va vo za zu".split()
PACKAGES = 3000


def main():
    rng = random.Random(20250101)
    names = []
    while len(names) < PACKAGES:
        name = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))
        if rng.random() < 0.4:
            name = "lib" + name + str(rng.randint(0, 9))
        if name not in names:
            names.append(name)
    order = rng.sample(names, len(names))
    base = order[:12]
    virtual = ["virtual-" + name for name in rng.sample(SYLLABLES, 8)]
    print("# SPDX-License-Identifier: MIT")
    print("# Synthetic packages; written by make-fixture.py.")
    for name in sorted(names):
        area = rng.choice(["", "", "", "extra/"])
        rank = order.index(name)
        print("\nPackage: " + name)
        print("Section: " + area + rng.choice(SECTIONS))
        wants = set()
        if rng.random() < 0.85:
            wants.add(base[min(int(rng.expovariate(0.7)), 11)] + " (>= %d.%d)" % (rng.randint(0, 9), rng.randint(0, 9)))
        for _ in range(min(int(rng.expovariate(0.3)), 14)):
            want = order[int(max(rank, 20) * rng.random() ** 2)]
            if rng.random() < 0.1:
                want += ":any"
            if rng.random() < 0.1:
                want += " | " + rng.choice(virtual)
            wants.add(want)
        if wants:
            print("Depends: " + ", ".join(sorted(wants)))
        if rng.random() < 0.02:
            print("Pre-Depends: " + base[0])
        if rng.random() < 0.02:
            print("Provides: " + rng.choice(virtual) + " (= 1)")


main()
