#!/usr/bin/env python3
"""gemma4c as a model of lm-eval (EleutherAI's harness): pip install lm-eval, then

    python3 lm_eval_gemma4.py --model_args path=model.g4 --tasks hellaswag --limit 20

The class registers itself as "gemma4"; the rest of the command line is lm-eval's own. Scores come from the logits of the
engine, so that they say what a weight type or key/value type costs."""

import sys

from gemma4c import Engine
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model


@register_model("gemma4")
class Gemma4(LM):
    def __init__(self, path=None, threads=0, context=4096, parallel=8, **ignored):
        super().__init__()
        self.engine = Engine(path, threads=int(threads))
        self.context, self.parallel = min(int(context), self.engine.info.max_ctx), int(parallel)
        self.session = self.engine.session(context=self.context)

    def _ids(self, text, bos=False):
        return list(self.engine.tokenize(text, bos=bos))

    def _score(self, before, tokens):
        """The log-probability of tokens behind others, of which as many count as the context holds."""
        before = before[-max(1, self.context - len(tokens)):]
        values, is_best = self.engine.score(before, tokens, session=self.session)
        return float(values.sum()), bool(is_best)

    def loglikelihood(self, requests, disable_tqdm=False):
        out = []
        for request in requests:
            context, continuation = request.args
            blank = len(context) - len(context.rstrip())  # blanks belong to the word behind them
            context, continuation = context[: len(context) - blank], context[len(context) - blank:] + continuation
            whole, before = self._ids(context + continuation, bos=True), self._ids(context, bos=True)
            out.append(self._score(whole[: len(before)], whole[len(before):]))
        return out

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        out = []
        for request in requests:
            ids, total = self._ids(request.args[0], bos=True), 0.0
            step = self.context // 2
            for at in range(1, len(ids), step):  # each token once, with at least half a context before it
                total += self._score(ids[max(0, at - step):at], ids[at:at + step])[0]
            out.append(total)
        return out

    def generate_until(self, requests, disable_tqdm=False):
        out = []
        for request in requests:
            context, options = request.args
            until = [s for s in options.get("until", []) if s]
            answer = self.session.complete(
                context, stop=until or None, max_tokens=int(options.get("max_gen_toks", 256)),
                temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0)
            out.append(answer.text)
        return out


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.argv[1:1] = ["--model", "gemma4"]
    cli_evaluate()
