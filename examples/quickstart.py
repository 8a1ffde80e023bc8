import dcompute as dc


@dc.workload(timeout="30 s", memory="1 GiB")
def collatz(n: int) -> dict:
    """How long the Collatz sequence of n is, and how high it climbs."""
    if n < 1:
        raise ValueError(f"{n} is not a natural number")
    steps = peak = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps, peak = steps + 1, max(peak, n)
    return {"steps": steps, "peak": peak}


run = dc.map(collatz, range(5000), "collatz")  # into the folder collatz; the same line again goes on
run.wait()  # a progress bar; never raises for a failed item
print(run.summary())

results = run.results().compute()  # a pandas dataframe: item_key, key_kind and your columns
print(results.nlargest(3, "steps"))
print(run.failures()[["item_key", "kind", "error", "message"]].compute())
