"""The options of the task Dyck-3."""

from dataclasses import dataclass


@dataclass
class DyckConfig:
    """The task. Lengths count brackets, so a context of 64 holds at most 62 of them."""

    name: str = "dyck3"
    """Chosen as `task=dyck3`."""
    context: int = 64
    """Tokens of a sequence: BOS, content, EOS, PAD."""
    max_depth: int = 8
    """The deepest stack; deeper is a violation."""
    min_length: int = 2
    """Of the content of training sequences."""
    max_length: int = 62
    """Of the content of training sequences; 48 makes the distribution `long` truly held out."""
    eval_max_length: int = 48
    """Greatest length of the content where members are evaluated on the distribution `train`; 48 is the paper's code.
    A greater one than `max_length` is lowered to that."""
    long_min_length: int = 50
    """Of the content of the distribution `long`."""
    long_max_length: int = 60
    """Of the content of the distribution `long`."""
    nest_min_depth: int = 3
    """The shallowest nest of the distribution `compositional`."""

    def __post_init__(self) -> None:
        content = self.context - 2
        if self.context > 120 or self.max_depth > 15:  # heights are int8, stacks two bits a bracket
            raise ValueError(
                f"task.context={self.context}, task.max_depth={self.max_depth}: at most 120 and 15"
            )
        for low, high in (("min_length", "max_length"), ("long_min_length", "long_max_length")):
            a, b = getattr(self, low), getattr(self, high)
            if not 1 <= a <= b <= content:
                raise ValueError(
                    f"task.{low}={a}, task.{high}={b}: need 1 <= {low} <= {high} <= context - 2 = {content}"
                )
        if self.eval_max_length < self.min_length:
            raise ValueError(
                f"task.eval_max_length={self.eval_max_length}: at least task.min_length={self.min_length}"
            )
        self.eval_max_length = min(self.eval_max_length, self.max_length)
        if not 1 <= self.nest_min_depth <= self.max_depth <= content // 2:
            raise ValueError(
                f"task.nest_min_depth={self.nest_min_depth}, task.max_depth={self.max_depth}: "
                f"need 1 <= nest_min_depth <= max_depth <= {content // 2}"
            )
