"""Tables of what gradients of ordinary Python cost, and of what the programs found by them."""

from .table import milliseconds, result, source, table


def costs() -> str:
    """Return the table of the tape's time beside that of adjoints by hand, if it was measured."""
    if not (measured := result("differentiable")):
        return ""
    head = ["gradient", "simulation, ms", "by hand", "tape", "recomputed", "PyTorch"]
    head += ["tape / hand", "kept, MB", "recomputed, MB"]
    ways = ("simulation", "by hand", "tape", "tape, recomputed", "PyTorch")
    lines = []
    for row in measured["rows"]:
        memory = row["memory_mb"]
        lines.append(
            [
                f"`{row['script']}.py`",
                *(milliseconds(row["ms"].get(way)) for way in ways),
                f"{row['of_hand']['tape']['ratio']:.1f}",
                *(memory.get(way, "") for way in ("tape", "tape, recomputed")),
            ]
        )
    return f"{table(head, lines)}\n\n{source('differentiable', after=', one thread')}"


def results() -> str:
    """Return what the three programs found, if they were run."""
    if not (found := result("differentiable").get("results")):
        return ""
    cell, cooling, waves = (
        found[name]["metrics"] for name in ("optimise_physics", "control_cooling", "image_waves")
    )
    scipy = cell["least_squares"]
    worst = max(abs(scipy["constants"][name] / true - 1) for name, true in cell["true"].items())
    plan, pid = cooling["plan"], cooling["pid"]
    return (
        f"- The constants are found to {cell['largest_error']:.1%} (`least_squares`: {worst:.1%});"
        f" what is left of the measurements is {cell['rmse_kelvin']:.4f} K, as of `least_squares`"
        f" ({scipy['rmse_kelvin']:.4f} K), for noise of 0.02 K.\n"
        f"- Plans cost {plan['cost']:.2f} ({plan['pumping']:.2f} for pumping, {plan['heat']:.2f}"
        f" for heat), the PID controller {pid['cost']:.2f} ({pid['pumping']:.2f},"
        f" {pid['heat']:.2f}). The network is off by {cooling['rmse_kelvin']:.2f} K.\n"
        f"- The map correlates to {waves['correlation']:.2f} with the true one; its error is"
        f" {waves['map_error']:.0%} of what there is to see."
    )
