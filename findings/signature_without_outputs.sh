#!/usr/bin/env bash
# TFLiteConverter.from_saved_model(..., signature_keys=["add", "reset"]) leaves a signature out that gives nothing,
# though it was asked for by name and changes a variable: the file has no way to set its states back, and nothing
# says so. Let it give something.
# Seen with tensorflow 2.21.0, ai-edge-litert 2.3.0, Python 3.11:
#   SavedModel: add, reset; LiteRT: add; with an output: add, reset
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow==2.21.0 ai-edge-litert==2.3.0
cat >show.py <<'END'
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


class Counter(tf.Module):
    def __init__(self, gives):
        self.count, self.gives = tf.Variable(0.0), gives

    @tf.function(input_signature=[tf.TensorSpec([], name="x")])
    def add(self, x):
        return {"count": self.count.assign_add(x)}

    @tf.function(input_signature=[])
    def reset(self):
        self.count.assign(0.0)
        return {"count": tf.constant(0.0)} if self.gives else {}


def signatures(gives):
    """Those of the SavedModel, and of the file that becomes of it."""
    module, path = Counter(gives), f"counter_{gives}"
    names = ["add", "reset"]
    tf.saved_model.save(module, path, {name: getattr(module, name) for name in names})
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=names)
    interpreter = Interpreter(model_content=converter.convert())
    for kept in (tf.saved_model.load(path).signatures, interpreter.get_signature_list()):
        yield ", ".join(sorted(kept))


saved, converted = signatures(False)
print(f"SavedModel: {saved}; LiteRT: {converted}; with an output: {[*signatures(True)][1]}")
END
seen=$(venv/bin/python show.py 2>log | tail -n 1)
echo "$seen"
test "$seen" = "SavedModel: add, reset; LiteRT: add; with an output: add, reset"
