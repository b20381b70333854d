"""What each process of a crowd does to one store. Imports little: 16 children load it."""

import kvsync

PROCESSES, ROUNDS = 16, 500


def use_dict(store: kvsync.Store, me: int) -> int:
    """Each of them does all of this; returns how often its transactions read what they wrote."""
    d = store.dict("d")
    whole = 0
    for n in range(ROUNDS):
        d.increment_many({"increments": 1, "many": 2})
        while True:
            value = d.get("swapped", 0)
            if d.compare_and_set("swapped", value if value else kvsync.MISSING, value + 1):
                break
        with store.transaction():
            written = d.get("last", 0)
            d.set_many({"last": written + 1, "copy": written + 1})
            whole += d.get_many(["last", "copy"]) == {"last": written + 1, "copy": written + 1}
        if d.setdefault(f"first {n}", me) == me:
            d.increment("firsts")
    return whole


def use_counters(store: kvsync.Store, me: int) -> tuple[list[int], int]:
    """Each of them does all of this; returns what its adds and its resets gave."""
    adds, swapped, drawn = (store.counter(name) for name in ("adds", "swapped", "drawn"))
    family = store.counters("family")
    seen, taken = [], 0
    for n in range(ROUNDS):
        seen.append(adds.add())
        family.add_many({f"{me}": 1, "all": 2})
        while True:
            value = swapped.value
            if swapped.compare_and_set(value, value + 1):
                break
        drawn.add()
        if not n % 20:
            taken += drawn.reset()
        with store.transaction():
            store.counter("left").add(n)
            store.counter("right").sub(n)
    return seen, taken
