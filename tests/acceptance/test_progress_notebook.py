"""Progress in a real notebook: one output in the cell that started the run, updated in place."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """
import threading
from dcompute.progress import Snapshot, make_progress
show = make_progress("auto")
"""

#: The driver's thread shows progress while the next cell runs.
LATER = """
def drive():
    show.update(Snapshot(done=1, total=4))
    show.close(Snapshot(done=4, total=4, state="finished"))
thread = threading.Thread(target=drive)
thread.start()
thread.join()
print(type(show).__name__)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_notebook_gets_one_output_that_is_brought_up_to_date():
    """Chosen by itself; the last figures replace the first ones."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell(LATER)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert "HtmlProgress" in "".join(output.get("text", "") for output in outputs)
    pages = [output["data"]["text/html"] for output in outputs if "data" in output]
    assert len(pages) == 1
    assert "finished: 4 of 4 done" in pages[0]
