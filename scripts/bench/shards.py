"""Time training steps of one process with several shards of the global batch against one.

    python scripts/bench/shards.py [WORKLOAD ...] [--shards S] [--json FILE] [--rounds R]

Several shards give the same bits for 1 to S ranks; this is what they cost.
"""

from lib import harness, steps

from workloads import WORKLOADS


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 11)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}; resnet20 unless named",
    )
    parser.add_argument(
        "--shards", type=int, default=8, metavar="S", help="how many (default: %(default)s)"
    )
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rows = []
    for name in options.workloads or ["resnet20"]:
        counts = {"one": 1, "several": options.shards}
        contestants = {
            which: steps.ours(WORKLOADS[name], steps.TIMING_RATE, count)
            for which, count in counts.items()
        }
        times = harness.interleaved(contestants, options.rounds, 0.3)
        medians = {
            f"{which}_ms": harness.spread(seconds)["median"] for which, seconds in times.items()
        }
        rows.append(
            {
                "name": name,
                "shards": options.shards,
                **medians,
                **harness.ratio(times["several"], times["one"]),
            }
        )
        print(
            f"{name}: {medians['several_ms']:.3f} ms with {options.shards} shards,"
            f" {rows[-1]['ratio']:.3f} times that with one"
        )
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
