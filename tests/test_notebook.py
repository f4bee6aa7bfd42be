"""The notebook of the documentation runs from its first cell to its last, in a kernel of its own."""

import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_valid_and_holds_no_outputs():
    notebook = read()
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_is_for(tmp_path):
    notebook = read()
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    shown = {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert [output for outputs in shown.values() for output in outputs if output.get("name") == "stderr"] == []
    panel, table = shown["run"]
    assert "periodic:200" in panel.data["text/html"]
    assert panel.output_type == "display_data"
    assert "<th>target</th><td>periodic:200</td>" in table.data["text/html"]
    [curve] = shown["run.plot()"]
    assert curve.data["image/png"].startswith("iVBOR")
    [compared] = shown["comparison"]
    assert all(rule in compared.data["text/html"] for rule in ("periodic:200", "incremental:0.01"))
    [curves] = shown["comparison.figure()"]
    assert curves.data["image/png"].startswith("iVBOR")
    assert {path.name for path in (tmp_path / "runs" / "notebook").iterdir()} == {
        f"{name}-{seed}" for name in ("periodic", "incremental") for seed in range(2)
    }
