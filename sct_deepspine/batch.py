"""Label a cohort: every scan once, whatever happens to one of them.

The public names of the batch; what they do is in :mod:`sct_deepspine.workflow`.
"""

from sct_deepspine.workflow.cohort import label_scan
from sct_deepspine.workflow.executors import run_batch
from sct_deepspine.workflow.job import BatchOptions
from sct_deepspine.workflow.overview import Row, write_overview

__all__ = ["BatchOptions", "Row", "label_scan", "run_batch", "write_overview"]
