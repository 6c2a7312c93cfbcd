"""A jaxpr in any precision: ``evaluate`` and ``compile``; importable without mpmath."""

from jaxnn.verify.precise.interpreter import Unsupported, compile, evaluate

__all__ = ["Unsupported", "compile", "evaluate"]
