"""What a learner does in JupyterLab: find a cell, type an answer, run it, read what comes out, press Validate."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

# JupyterLab draws only the cells near the view, so a cell is looked up in its model and scrolled to.
FIND = """([key, value]) => {
    const content = window.jupyterapp.shell.currentWidget.content;
    const index = content.widgets.findIndex(cell => key === 'tag'
        ? (cell.model.getMetadata('tags') ?? []).includes(value)
        : cell.model.getMetadata('nbgrader')?.grade_id === value);
    if (index >= 0) { content.activeCellIndex = index; content.scrollToItem(index, 'center'); }
    return index;
}"""


READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


class LabPage:
    """The open notebook."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.goto(address)
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=120_000)
        page.locator(".jp-NotebookPanel-toolbar").get_by_text("Python 3").wait_for(timeout=120_000)
        page.wait_for_function(READY, timeout=120_000)  # a cell that is run before that is not run at all

    def cell(self, key: str, value: str) -> Locator:
        """The cell with this grade id (`grade_id`) or tag (`tag`), scrolled into view."""
        index = self.page.evaluate(FIND, [key, value])
        assert index >= 0, f"no cell with {key} {value}"
        return self.page.locator(f".jp-Notebook-cell[data-windowed-list-index='{index}']")

    def run(self, key: str, value: str, source: str | None = None) -> Locator:
        """Run a cell, with `source` typed over what is in it; returns the cell."""
        cell = self.cell(key, value)
        cell.locator(".cm-content").click()
        if source is not None:
            self.page.keyboard.press("Control+a")
            self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
        return cell

    def expect_output(self, key: str, value: str, *texts: str) -> None:
        """Wait until the outputs of a cell contain these texts."""
        output = self.cell(key, value).locator(".jp-OutputArea")
        for text in texts:
            expect(output).to_contain_text(text, timeout=120_000, use_inner_text=True)

    def validate(self) -> str:
        """Press nbgrader's Validate button; returns what the dialog says in the end."""
        self.page.locator(".validate-button").first.click()
        dialog = self.page.locator(".jp-Dialog", has_text="Validation Results")
        dialog.wait_for(timeout=240_000)
        return dialog.inner_text()
