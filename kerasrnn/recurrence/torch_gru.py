"""A GRU over a whole sequence under PyTorch on a CPU, where `torch.gru` has no kernel for training:
there autograd adds a product to the recurrent kernel's gradient at every step.

    m_t = U h_{t-1} + c
    z_t, r_t = σ(W_zr x_t + b_zr + m_zr,t)
    g_t = tanh(W_g x_t + b_g + r_t ∘ m_g,t)
    h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ g_t

Backward, of the derivative of m_t by its gradient only ∂J/∂h_t is not known before the loop:

    ∂J/∂m_t = [∂J/∂h_t]³ ∘ f_t      f_t from the values kept, for a block of steps at once
    ∂J/∂h_{t-1} = ∂J/∂h_t ∘ z_t + Uᵀ ∂J/∂m_t

and every weight's gradient is one product for each block of steps.
"""

import torch

# Of one array of a block, (steps, batch, 3 units), so that all of them stay in the cache.
_BLOCK_BYTES = 1 << 20


def gru(x, h, kernel, recurrent_kernel, bias, plain):
    """The outputs of all steps, (batch, time, units).

    Args:
        x: (batch, time, features).
        h: The initial state, (batch, units).
        kernel, recurrent_kernel, bias: Those of a `GRUCell` with `reset_after`.
        plain: A function of these five, which gives the same outputs and can be differentiated any
            number of times: it takes the place of the backward loop where a gradient is to be.
    """
    return _Loop.apply(plain, x, h, kernel, recurrent_kernel, bias)[0]


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(plain, x, h, kernel, recurrent_kernel, bias):
        (batch, time, _), units = x.shape, len(recurrent_kernel)
        # h_{t-1} of all steps and the last h, (time + 1, batch, units); z, r, m_g; g.
        states = x.new_empty(time + 1, batch, units)
        gates = x.new_empty(time, batch, 3 * units)
        candidates = x.new_empty(time, batch, units)
        states[0] = h
        m_z_r = gates[:, :, : 2 * units].unbind(0)
        _, r, m_g = (of_gate.unbind(0) for of_gate in gates.chunk(3, -1))
        z = gates[:, :, :units].unbind(0)
        m, g, (h, *new) = gates.unbind(0), candidates.unbind(0), states.unbind(0)
        for block in _blocks(gates):
            xs = torch.addmm(bias[0], _rows(x, block), kernel).view(-1, batch, 3 * units)
            x_z_r, x_g = (v.unbind(0) for v in xs.split([2 * units, units], -1))
            for i, t in enumerate(range(block.start, block.stop)):
                torch.addmm(bias[1], h, recurrent_kernel, out=m[t])
                m_z_r[t].add_(x_z_r[i]).sigmoid_()
                torch.addcmul(x_g[i], r[t], m_g[t], out=g[t]).tanh_()
                h = torch.lerp(g[t], h, z[t], out=new[t])
        return states[1:].transpose(0, 1), states, gates, candidates

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.plain, *arguments = inputs
        _, *kept = output
        ctx.mark_non_differentiable(*kept)
        # Else zeros are made for all that is kept.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arguments, *kept)
        ctx.save_for_forward(*arguments)

    @staticmethod
    def jvp(ctx, _, *tangents):
        of = ctx.saved_tensors
        tangents = [
            torch.zeros_like(v) if d is None else d for v, d in zip(of, tangents, strict=True)
        ]
        _, d_outputs = torch.func.jvp(ctx.plain, of, tuple(tangents))
        return d_outputs, None, None, None

    @staticmethod
    def backward(ctx, d_outputs, *_):
        if d_outputs is None:
            return (None,) * 6
        x, h, kernel, recurrent_kernel, bias, states, gates, candidates = ctx.saved_tensors
        if torch.is_grad_enabled():
            _, pull = torch.func.vjp(ctx.plain, x, h, kernel, recurrent_kernel, bias)
            return None, *pull(d_outputs)
        units = len(recurrent_kernel)
        d_outputs = d_outputs.transpose(0, 1).unbind(0)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        d_kernel, d_recurrent, d_bias = map(torch.zeros_like, (kernel, recurrent_kernel, bias))
        # ∂J/∂h_t by way of the steps after t.
        later = torch.zeros_like(h)
        transposed = recurrent_kernel.T
        for block in reversed(_blocks(gates)):
            before, g = states[block], candidates[block]
            z, r, m_g = gates[block].chunk(3, -1)
            by_g = (1 - z) * (1 - g * g)
            by_m = [(before - g) * z * (1 - z), by_g * m_g * r * (1 - r), by_g * r]
            f = torch.stack(by_m, 2)
            d_m, d_h = torch.empty_like(f), torch.empty_like(before)
            of_steps = zip(
                *(v.unbind(0) for v in (d_h, d_m, d_m.flatten(2), f, z)),
                d_outputs[block],
                strict=True,
            )
            for d, d_gates, d_row, factors, keep, d_output in reversed(list(of_steps)):
                torch.add(later, d_output, out=d)
                torch.mul(d[:, None], factors, out=d_gates)
                torch.mul(d, keep, out=later)
                later.addmm_(d_row, transposed)
            d_rows = d_m.view(-1, 3 * units)
            d_recurrent.addmm_(before.flatten(0, 1).T, d_rows)
            d_bias[1] += d_rows.sum(0)
            # As m_g goes into the candidate times r, x does as it is.
            torch.mul(d_h, by_g, out=d_m[:, :, 2])
            d_kernel.addmm_(_rows(x, block).T, d_rows)
            d_bias[0] += d_rows.sum(0)
            if d_x is not None:
                d_x[:, block] = (d_rows @ kernel.T).view(-1, *x[:, 0].shape).transpose(0, 1)
        return None, d_x, later, d_kernel, d_recurrent, d_bias


def _blocks(v):
    """The steps of v, (time, batch, ...), in slices."""
    time = len(v)
    steps = max(1, _BLOCK_BYTES * time // max(1, v.nbytes))
    return [slice(t, min(t + steps, time)) for t in range(0, time, steps)]


def _rows(x, block):
    """These steps of x, (batch, time, features), as (steps * batch, features)."""
    return x[:, block].transpose(0, 1).flatten(0, 1)
