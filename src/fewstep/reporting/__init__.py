"""The report: what benchmarks and claims measured, as one page with interactive plots that needs no network."""

from fewstep.reporting.page import write_report

__all__ = ["write_report"]
