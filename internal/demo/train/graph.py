"""Writes the model as an ONNX graph in the layout of Hugging Face Optimum: KV cache in and out, position_ids."""
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 14, 7
PAST, TOTAL = "past_sequence_length", "past_sequence_length + sequence_length"


class Graph:
    """Collects nodes and initializers; every method returns the name of the value it makes."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def op(self, kind, inputs, output=None, **attributes):
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", **attributes))
        return output

    def weight(self, name, value):
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values):
        return self.weight("ints_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def scalar(self, name, value, dtype=np.float32):
        return self.weight(name, np.array(value, dtype))

    def matmul(self, x, name, linear):
        """x times a torch Linear, whose weight is stored [out,in]."""
        return self.op("MatMul", [x, self.weight(name, linear.weight.detach().numpy().T)])

    def norm(self, x, name, norm):
        mean = self.op("ReduceMean", [self.op("Mul", [x, x])], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.scalar("rms_norm_eps", norm.eps)])])
        return self.op("Mul", [self.op("Div", [x, root]), self.weight(name, norm.weight.detach().numpy())])

    def reshape(self, x, *shape):
        return self.op("Reshape", [x, self.ints(*shape)])


def rotary(g, net):
    """cos and sin of every position, [B,1,T,d/2]."""
    position = g.op("Unsqueeze", [g.op("Cast", ["position_ids"], to=TensorProto.FLOAT), g.ints(1, 3)])
    angles = g.op("Mul", [position, g.weight("rotary.frequencies", net.frequencies.numpy())])
    return g.op("Cos", [angles]), g.op("Sin", [angles])


def rotate(g, x, cos, sin, half):
    a = g.op("Slice", [x, g.ints(0), g.ints(half), g.ints(3)])
    b = g.op("Slice", [x, g.ints(half), g.ints(2 * half), g.ints(3)])
    left = g.op("Sub", [g.op("Mul", [a, cos]), g.op("Mul", [b, sin])])
    right = g.op("Add", [g.op("Mul", [b, cos]), g.op("Mul", [a, sin])])
    return g.op("Concat", [left, right], axis=3)


def mask(g):
    """[B,1,1,T,P+T]: 0 where a query may look, -1e9 where it comes too early or attention_mask is 0.

    Finite, so that the rows of left padding, which may look nowhere, stay numbers.
    """
    length = g.op("Gather", [g.op("Shape", ["input_ids"]), g.scalar("one", 1, np.int64)])
    total = g.op("Gather", [g.op("Shape", ["attention_mask"]), g.scalar("one", 1, np.int64)])
    zero, one = g.scalar("zero", 0, np.int64), g.scalar("one", 1, np.int64)
    keys = g.op("Range", [zero, total, one])
    queries = g.op("Unsqueeze", [g.op("Range", [g.op("Sub", [total, length]), total, one]), g.ints(1)])
    causal = g.op("LessOrEqual", [keys, queries])
    present = g.op("Cast", [g.op("Unsqueeze", ["attention_mask", g.ints(1, 2, 3)])], to=TensorProto.BOOL)
    return g.op("Where", [g.op("And", [causal, present]), g.scalar("allowed", 0.0), g.scalar("forbidden", -1e9)])


def attention(g, x, layer, i, c, cos, sin, masked):
    """Grouped queries [B,K,H/K,T,d] meet keys [B,K,1,P+T,d], so no key is ever repeated."""
    kv, group, head = c["num_key_value_heads"], c["num_attention_heads"] // c["num_key_value_heads"], c["head_dim"]
    name = f"model.layers.{i}.self_attn."

    def split(linear, which, heads):
        projected = g.reshape(g.matmul(x, f"{name}{which}_proj.weight", linear), 0, 0, heads, head)
        return g.op("Transpose", [projected], perm=[0, 2, 1, 3])

    q = rotate(g, split(layer.q, "q", kv * group), cos, sin, head // 2)
    k = rotate(g, split(layer.k, "k", kv), cos, sin, head // 2)
    v = split(layer.v, "v", kv)
    k = g.op("Concat", [f"past_key_values.{i}.key", k], f"present.{i}.key", axis=2)
    v = g.op("Concat", [f"past_key_values.{i}.value", v], f"present.{i}.value", axis=2)
    q = g.op("Reshape", [q, g.op("Concat", [
        g.op("Slice", [g.op("Shape", ["input_ids"]), g.ints(0), g.ints(1)]), g.ints(kv, group, -1, head)], axis=0)])
    keys = g.op("Unsqueeze", [g.op("Transpose", [k], perm=[0, 1, 3, 2]), g.ints(2)])
    scores = g.op("Mul", [g.op("MatMul", [q, keys]), g.scalar("attention_scale", 1 / math.sqrt(head))])
    weights = g.op("Softmax", [g.op("Add", [scores, masked])], axis=-1)
    mixed = g.op("MatMul", [weights, g.op("Unsqueeze", [v, g.ints(2)])])
    mixed = g.op("Transpose", [mixed], perm=[0, 3, 1, 2, 4])
    return g.matmul(g.reshape(mixed, 0, 0, -1), f"{name}o_proj.weight", layer.o)


def mlp(g, x, layer, i):
    name = f"model.layers.{i}.mlp."
    gate = g.matmul(x, f"{name}gate_proj.weight", layer.gate)
    gate = g.op("Mul", [gate, g.op("Sigmoid", [gate])])
    return g.matmul(g.op("Mul", [gate, g.matmul(x, f"{name}up_proj.weight", layer.up)]),
                    f"{name}down_proj.weight", layer.down)


def build(net):
    g, c = Graph(), net.config
    embed = g.weight("model.embed_tokens.weight", net.embed.weight.detach().numpy())
    x = g.op("Gather", [embed, "input_ids"])
    (cos, sin), masked = rotary(g, net), mask(g)
    for i, layer in enumerate(net.layers):
        h = g.norm(x, f"model.layers.{i}.input_layernorm.weight", layer.norm1)
        x = g.op("Add", [x, attention(g, h, layer, i, c, cos, sin, masked)])
        h = g.norm(x, f"model.layers.{i}.post_attention_layernorm.weight", layer.norm2)
        x = g.op("Add", [x, mlp(g, h, layer, i)])
    hidden = g.norm(x, "model.norm.weight", net.norm)
    g.op("MatMul", [hidden, g.op("Transpose", [embed], perm=[1, 0])], "logits")
    return g


def values(c):
    """The graph's declared inputs and outputs."""
    def value(name, shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    def cache(prefix, length):
        shape = ["batch_size", c["num_key_value_heads"], length, c["head_dim"]]
        return [value(f"{prefix}.{i}.{part}", shape) for i in range(c["num_hidden_layers"]) for part in ("key", "value")]

    ids = ["batch_size", "sequence_length"]
    inputs = [value("input_ids", ids, TensorProto.INT64),
              value("attention_mask", ["batch_size", TOTAL], TensorProto.INT64),
              value("position_ids", ids, TensorProto.INT64), *cache("past_key_values", PAST)]
    return inputs, [value("logits", [*ids, c["vocab_size"]]), *cache("present", TOTAL)]


def write(net, path):
    g = build(net)
    inputs, outputs = values(net.config)
    graph = helper.make_graph(g.nodes, "demo", inputs, outputs, list(g.weights.values()))
    proto = helper.make_model(graph, producer_name="dpo-pipe demo", ir_version=IR_VERSION,
                              opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
