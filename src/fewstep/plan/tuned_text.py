"""What a tuned plan says of itself: for what it was tuned, what that gained, and what it cost."""

from typing import Any

DEFAULT = "dpm-solver++, logsnr"


def tuned_text(about: dict[str, Any]) -> str:
    """The sentences of a tuned plan.

    Args:
        about: what `tune` measured, `plan.source["tuned"]`; what a file lacks of it is left out or told as "?".
    """
    told = [f"tuned {_for_what(about)}: {_gain(about)}", _way(about), _cost(about)]
    return ". ".join(sentence for sentence in told if sentence)


def _number(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "?" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _for_what(a: dict[str, Any]) -> str:
    model = f" for {a['model']}" if a.get("model") else ""
    guides = f", with {', '.join(map(str, a['guides']))}" if a.get("guides") else ""
    kind = f" ({a['path']} path{guides})" if a.get("path") else ""
    return f"by {a.get('method', '?')}{model} at {_number(a.get('evaluations'))} evaluations{kind}"


def _gain(a: dict[str, Any]) -> str:
    what, against = a.get("measure", "median RMSE to the flow"), a.get("untuned", DEFAULT)
    before, after = _number(a.get("before")), _number(a.get("after"))
    text = f"{what} {before} before ({against}), {after} after, on noises not seen"
    if "default" in a and against != DEFAULT:
        text += f"; dpm-solver++ on logsnr has {_number(a['default'])}"
    return text


def _way(a: dict[str, Any]) -> str:
    """How far it was gone from the start to what was found, and what every share was worth."""
    went, seen = a.get("went"), a.get("settled")
    if isinstance(seen, str):
        return f"How far it pays to go was {seen}"
    if not isinstance(went, (int, float)) or not isinstance(seen, dict):
        return ""
    gone = {0.0: "The start itself was kept", 1.0: "What was found was taken whole"}
    text = gone.get(float(went), f"{went:.0%} of the way from the start to what was found was gone")
    told = ", ".join(f"{float(share):.0%}: {_number(value)}" for share, value in reversed(seen.items()))
    return f"{text}; on noises of their own, by the share of the way, {told}"


def _cost(a: dict[str, Any]) -> str:
    limit = f" of {_number(a['budget'])}" if a.get("budget") else ""
    text = f"{_number(a.get('spent'))}{limit} evaluations of the network and {_number(a.get('seconds'))} s were spent"
    return text + (f", seed {a['seed']}" if "seed" in a else "")
