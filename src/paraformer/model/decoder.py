"""The SAN-M decoder: all tokens in one pass, or the tokens of one live step (spec 4).

A live step is exact because the memory is causal over tokens (`shift` = (kernel - 1) / 2): a layer needs only the
last kernel - 1 rows that entered its memory. With `look_ahead` it also sees the later tokens of the same step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paraformer.config import SanmDecoderConfig, TextConfig
from paraformer.model.layers import CrossAttention, Fsmn, NormedFeedForward, layer_norm, length_mask, unless_full
from paraformer.model.state import State


@dataclass(frozen=True)
class DecoderState(State):
    """What a decoder step takes from the steps before it.

    fsmn (B, memories, kernel - 1, D): the last rows that entered each layer's memory.
    memory (B, P, D'): encoder rows of earlier steps; of each stream the last memory_lengths (B,) are valid.
    """

    fsmn: Tensor
    memory: Tensor
    memory_lengths: Tensor


class SanmDecoderBlock(nn.Module):
    """Feed-forward, then FSMN memory, then (if it has one) cross-attention; the residuals sit as in spec 4.1."""

    def __init__(self, config: SanmDecoderConfig, dim: int, memory_dim: int, *, cross: bool) -> None:
        super().__init__()
        # As in the reference, where the memory of layers without attention is centred.
        shift = config.shift if cross else 0
        self.feed_forward = NormedFeedForward(dim, config.ffn_dim, config.dropout)
        self.memory = Fsmn(dim, config.kernel, shift, 0.0)
        self.norm1 = layer_norm(dim)
        self.norm2 = layer_norm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.cross = CrossAttention(dim, memory_dim, config.heads, config.attention_dropout) if cross else None
        self.norm3 = layer_norm(dim) if cross else None

    def forward(
        self,
        x: Tensor,
        past: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        token_mask: Tensor | None,
        steps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (B, L, D), past (B, P, D) of the memory, encoder rows memory (B, K, D') with memory_mask (B, 1 or L, K).

        P is at least the memory's `left`; steps (B, L): see Fsmn.step. Returns (B, L, D) and the rows that entered the
        memory, past included: (B, P + L, D).
        """
        x, entered = self.remember(x, past, token_mask, steps)
        if self.cross is not None:
            x = x + self.dropout(self.attend(x, memory, memory_mask))
        return x, torch.cat([past.to(entered.dtype), entered], 1)

    def remember(
        self, x: Tensor, past: Tensor, token_mask: Tensor | None, steps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What comes before attention: rows (B, L, D), and those that entered the memory (B, L, D)."""
        # Feed-forward first and without a residual of its own: the reference's order, which the weights were trained
        # in.
        entered = self.norm2(self.feed_forward(self.norm1(x)))
        if token_mask is not None:
            entered = entered * token_mask[..., None].to(entered.dtype)
        # The past may hold more rows than the filter reaches: one size for all layers makes one tensor of state.
        nearest = past[:, past.shape[1] - self.memory.left :].to(entered.dtype)
        return x + self.dropout(self.memory.step(entered, nearest, token_mask, steps)), entered

    def attend(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """What attention adds to rows x (B, L, D)."""
        assert self.cross is not None and self.norm3 is not None, "this block has no attention"
        y: Tensor = self.cross(self.norm3(x), memory, memory_mask)
        return y

    def shares(self, x: Tensor, memory: Tensor) -> Tensor:
        """How much rows x (B, L, D) attend to each of the memory, (B, heads, L, K)."""
        assert self.cross is not None and self.norm3 is not None, "this block has no attention"
        return self.cross.shares(self.norm3(x), memory)


class FinalFeedForward(nn.Module):
    """The reference's third kind of layer: a feed-forward with neither residual nor memory."""

    def __init__(self, config: SanmDecoderConfig, dim: int) -> None:
        super().__init__()
        self.feed_forward = NormedFeedForward(dim, config.ffn_dim, config.dropout)
        self.norm1 = layer_norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        y: Tensor = self.feed_forward(self.norm1(x))
        return y


class Text(nn.Module):
    """Scores of units, and from their probabilities alone rows for characters: see TextConfig."""

    def __init__(self, text: TextConfig, config: SanmDecoderConfig, dim: int) -> None:
        super().__init__()
        inner = dataclasses.replace(config, ffn_dim=text.ffn_dim)
        self.norm = layer_norm(dim)
        self.units = nn.Linear(dim, text.units)
        self.back = nn.Linear(text.units, dim)
        self.blocks = nn.ModuleList(SanmDecoderBlock(inner, dim, dim, cross=False) for _ in range(text.layers))

    def score(self, x: Tensor) -> Tensor:
        """Rows (B, L, D) of the last block with attention -> scores (B, L, units)."""
        scores: Tensor = self.units(self.norm(x))
        return scores


class HotwordAttention(nn.Module):
    """Attention to hotwords inside the last block with attention: Contextual Paraformer, CLAS."""

    def __init__(self, config: SanmDecoderConfig, dim: int) -> None:
        super().__init__()
        self.cross = CrossAttention(dim, dim, config.heads, config.attention_dropout)
        self.norm = layer_norm(dim)
        # A convolution one row wide is a linear layer; published weights have its shape.
        self.output = nn.Conv1d(2 * dim, dim, 1, bias=False)

    def forward(self, x: Tensor, heard: Tensor, hotwords: Tensor, weight: float) -> Tensor:
        """Rows x (B, L, D) before attention, what attention to the audio made of them, hotwords (B or 1, N, D)."""
        # No mask: every hotword is there for every utterance.
        meant = self.cross(self.norm(x), hotwords, None)
        both = torch.cat([heard, weight * meant], -1).transpose(1, 2)
        y: Tensor = self.output(both)
        return x + y.transpose(1, 2)


class SanmDecoder(nn.Module):
    """Acoustic vectors to token scores, all in parallel."""

    def __init__(self, config: SanmDecoderConfig, vocab_size: int, dim: int, *, contextual: bool = False) -> None:
        """contextual: whether it attends to hotwords."""
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocab_size, dim)
        self.blocks = nn.ModuleList(
            SanmDecoderBlock(config, dim, dim, cross=index < config.attention_layers) for index in range(config.layers)
        )
        self.text = Text(config.text, config, dim) if config.text else None
        last = dataclasses.replace(config, ffn_dim=config.text.ffn_dim) if config.text else config
        self.final = FinalFeedForward(last, dim)
        self.norm = layer_norm(dim)
        self.output = nn.Linear(dim, vocab_size)
        self.hotwords = HotwordAttention(config, dim) if contextual else None

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Target embeddings for the sampler: ids (B, L) -> (B, L, D)."""
        y: Tensor = self.embed(ids)
        return y

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        embeds: Tensor,
        token_mask: Tensor | None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """memory (B, K, D), memory_mask (B, 1 or L, K), embeds (B, L, D), token_mask (B, L) -> logits (B, L, V).

        steps (B, L): the live step that each token would fall into, where they are to be seen as in live steps.
        """
        return self.scores(memory, memory_mask, embeds, token_mask, steps)[0]

    def scores(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        embeds: Tensor,
        token_mask: Tensor | None,
        steps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As forward, and scores (B, L, units) of the units where there is a text part."""
        past = self._nothing_before(embeds)
        # A causal memory sees nothing ahead in any form, so it need not be told where steps end.
        steps = steps if self.config.look_ahead else None
        x, units, _ = self._through(memory, memory_mask, embeds, token_mask, past, steps)
        return self._characters(x), units

    def rows(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        embeds: Tensor,
        token_mask: Tensor | None,
        hotwords: Tensor | None = None,
        weight: float = 1.0,
    ) -> Tensor:
        """The rows (B, L, D) of which `output` makes scores; arguments as those of forward.

        hotwords (B or 1, N, D), with their weight: for a decoder that attends to them.
        """
        past = self._nothing_before(embeds)
        if self.hotwords is None:
            x, _, _ = self._through(memory, memory_mask, embeds, token_mask, past, None)
        else:
            assert hotwords is not None, "this decoder was trained with hotwords, if only with none of them"
            x = self._hinted(memory, memory_mask, embeds, token_mask, past, hotwords, weight)
        return self._last_rows(x)

    def _hinted(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        embeds: Tensor,
        token_mask: Tensor | None,
        past: Tensor,
        hotwords: Tensor,
        weight: float,
    ) -> Tensor:
        """As `_through`, with attention to hotwords in the last block with attention."""
        assert self.hotwords is not None
        x = embeds
        for index, block in enumerate(self.blocks):
            assert isinstance(block, SanmDecoderBlock)
            # Where the model was trained to listen. The block is taken apart there: what was heard and what is meant by
            # the hotwords stand side by side, and one linear layer makes one of them.
            if index == self.config.attention_layers - 1:
                x, _ = block.remember(x, past[:, index], token_mask)
                x = self.hotwords(x, block.attend(x, memory, memory_mask), hotwords, weight)
            else:
                x, _ = block(x, past[:, index], memory, memory_mask, token_mask)
        return x

    def characters(self, units: Tensor, token_mask: Tensor | None, steps: Tensor | None = None) -> Tensor:
        """Scores (B, L, V) of characters from probabilities (B, L, units) alone: for a decoder with a text part.

        steps (B, L): as in forward.
        """
        assert self.text is not None
        x = self.text.back(units)
        x, _ = self._read(x, token_mask, self._nothing_before(x), steps)
        return self._characters(x)

    def _nothing_before(self, x: Tensor) -> Tensor:
        """Memories (B, memories, kernel - 1, D) of the first tokens x (B, L, D)."""
        return x.new_zeros(x.shape[0], self.config.memories, self.config.kernel - 1, x.shape[2])

    def _characters(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self._last_rows(x))
        return logits

    def _last_rows(self, x: Tensor) -> Tensor:
        rows: Tensor = self.norm(self.final(x))
        return rows

    def _through(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        embeds: Tensor,
        token_mask: Tensor | None,
        past: Tensor,
        steps: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """All blocks after a past (B, memories, kernel - 1, D): last rows, scores of units, what entered memories."""
        x, entered = embeds, []
        for index, block in enumerate(self.blocks):
            x, rows = block(x, past[:, index], memory, memory_mask, token_mask, steps)
            entered.append(rows)
        if self.text is None:
            return x, None, entered
        # Only probabilities go on and no rows: what follows can then be trained on text that nobody has read aloud.
        units = self.text.score(x)
        x, read = self._read(self.text.back(units.softmax(-1)), token_mask, past, steps)
        return x, units, entered + read

    def _read(
        self, x: Tensor, token_mask: Tensor | None, past: Tensor, steps: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The text part's blocks on x (B, L, D)."""
        assert self.text is not None
        entered = []
        for index, block in enumerate(self.text.blocks, start=len(self.blocks)):
            # Without attention: the third argument, where encoder rows would be, is not looked at.
            x, rows = block(x, past[:, index], x, None, token_mask, steps)
            entered.append(rows)
        return x, entered

    def init_state(self, batch: int, dim: int, memory_rows: int, device: torch.device | None = None) -> DecoderState:
        """The state before the first step of `batch` streams; memory_rows: decoder look-back in encoder rows."""
        return DecoderState(
            fsmn=torch.zeros(batch, self.config.memories, self.config.kernel - 1, dim, device=device),
            memory=torch.zeros(batch, memory_rows, dim, device=device),
            memory_lengths=torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def step_tokens(
        self, memory: Tensor, memory_mask: Tensor | None, embeds: Tensor, counts: Tensor, fsmn: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Scores of the tokens of one live step, those of their units where there is a text part, the next fsmn rows.

        embeds (B, L, D) of which counts (B,) are tokens; fsmn (B, memories, kernel - 1, D).
        """
        mask = length_mask(counts, embeds.shape[1])
        # The kernel - 1 rows that end with each stream's own last token: beyond it stands padding of the batch.
        kept = counts[:, None] + torch.arange(fsmn.shape[2], device=counts.device)
        x, units, entered = self._through(memory, memory_mask, embeds, mask, fsmn, None)
        following = [rows.gather(1, kept[..., None].expand(-1, -1, x.shape[2])) for rows in entered]
        return self._characters(x), units, torch.stack(following, 1)

    def step(
        self, memory: Tensor, mask: Tensor, embeds: Tensor, counts: Tensor, state: DecoderState
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """One live step of several streams (spec 4.3).

        memory (B, R, D) with mask (B, R), embeds (B, L, D) of which counts (B,) are tokens.
        Returns logits (B, L, V), scores (B, L, units) where there is a text part, and the next state. A stream without
        tokens keeps its state, as in the reference.
        """
        if embeds.shape[1] == 0:
            none = embeds.new_zeros(embeds.shape[0], 0, self.output.out_features)
            units = embeds.new_zeros(embeds.shape[0], 0, self.text.units.out_features) if self.text else None
            return none, units, state
        size = state.memory.shape[1]
        # What is looked back on stands at the right end, so that streams of any age lie in one batch.
        past_mask = torch.arange(size, device=mask.device)[None] >= size - state.memory_lengths[:, None]
        rows, seen = torch.cat([state.memory, memory], 1), torch.cat([past_mask, mask], 1)
        logits, units, fsmn = self.step_tokens(rows, unless_full(seen[:, None, :]), embeds, counts, state.fsmn)
        grown = DecoderState(
            fsmn=fsmn,
            memory=rows[:, rows.shape[1] - size :].clone(),  # a view would keep the rows of all steps alive
            memory_lengths=(state.memory_lengths + memory.shape[1]).clamp(max=size),
        )
        return logits, units, grown.where(counts > 0, state)


def window_memory_mask(fired_in: Tensor, token_mask: Tensor, row_mask: Tensor, look_back_rows: int) -> Tensor:
    """Which encoder rows each token sees when all windows stand side by side, exactly as in live steps.

    fired_in (B, L): the window in which a token fires; token_mask (B, L); row_mask (B, W, R).
    A token sees its own window and the last look_back_rows rows of earlier windows that had tokens.
    Returns (B, L, W * R).
    """
    steps, rows = row_mask.shape[1:]
    window = torch.arange(steps, device=row_mask.device)
    own = fired_in[..., None] == window
    if look_back_rows == 0:
        seen = own[..., None].expand(-1, -1, -1, rows)
    else:
        speaks = (own & token_mask[..., None]).any(1)
        before = speaks.long().cumsum(1)
        # How many windows with tokens lie between an earlier window and the token's own.
        between = before.gather(1, fired_in)[..., None] - before[:, None] - 1
        # In rows of windows that had tokens: those without leave the memory as it was, as in a live step.
        age = between[..., None] * rows + torch.arange(rows, device=row_mask.device).flip(0)
        earlier = (window < fired_in[..., None]) & speaks[:, None]
        seen = own[..., None] | (earlier[..., None] & (age < look_back_rows))
    return (seen & row_mask[:, None]).flatten(2)
