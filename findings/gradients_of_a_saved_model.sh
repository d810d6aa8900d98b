#!/usr/bin/env bash
# A SavedModel with a tf.custom_gradient in it warns when it is loaded that it "will likely fail if a gradient
# is requested". It serves the right numbers all the same, and gradients that were computed inside of it when it
# was saved; a tape around a call ends in a LookupError, in another process than the one that saved it (there the
# gradient is still registered, and a test that loads what it has just saved does not notice). Saved with
# SaveOptions(experimental_custom_gradients=True) it has its gradients, and no warning.
# Seen with tensorflow 2.21.0, Python 3.11:
#   plain: warns, serves 2 4, inside 5 5, tape LookupError; in the same process: tape 5 5; with the option: 5 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow==2.21.0
cat >load.py <<'END'
import sys

import tensorflow as tf


def served(path):
    loaded, x = tf.saved_model.load(path), tf.constant([1.0, 2.0])
    said = [loaded.serve(x).numpy(), loaded.inside(x).numpy()]
    try:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = loaded.serve(x)
        said.append(tape.gradient(y, x).numpy())
    except LookupError:
        said.append("LookupError")
    return " ".join(map(str, said))


if __name__ == "__main__":
    print(served(sys.argv[1]))
END
cat >save.py <<'END'
import tensorflow as tf
from load import served


@tf.custom_gradient
def double(x):
    return 2 * x, lambda upstream: 5 * upstream


class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None])])
    def serve(self, x):
        return double(x)

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def inside(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = double(x)
        return tape.gradient(y, x)


for path, kept in (("plain", False), ("kept", True)):
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=kept)
    tf.saved_model.save(Model(), path, options=options)
print(served("plain"))
END
here=$(venv/bin/python save.py 2>save.log)
plain=$(venv/bin/python load.py plain 2>plain.log)
kept=$(venv/bin/python load.py kept 2>kept.log)
warned=$(grep -c "unsaved custom gradients" plain.log || true)/$(grep -c "unsaved custom gradients" kept.log || true)
seen="where it was saved: $here; elsewhere: $plain; with the option: $kept; warnings: $warned"
echo "$seen"
test "$seen" = "where it was saved: [2. 4.] [5. 5.] [5. 5.]; elsewhere: [2. 4.] [5. 5.] LookupError; with the option: [2. 4.] [5. 5.] [5. 5.]; warnings: 2/0"
