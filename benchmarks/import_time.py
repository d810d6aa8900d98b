"""What importing kerasrnn costs on top of importing keras, in seconds: the median of ten pairs.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

PAIRS = 10
TIMED = """
import keras, time
start = time.perf_counter()
import kerasrnn
print(time.perf_counter() - start)
"""


def main():
    times = []
    for pair in range(PAIRS):
        done = subprocess.run([sys.executable, "-c", TIMED], capture_output=True, text=True)
        times.append(float(done.stdout))
        print(f"\r{pair + 1} of {PAIRS}", end="", flush=True)
    print(f"\nimport kerasrnn after import keras: {statistics.median(times):.3f} s")


if __name__ == "__main__":
    main()
