"""A report as Markdown."""

from fmnist_pl.compare.markdown import table
from fmnist_pl.search.report.document import Block, Bullets, Document, Plot, Section, Table, Text


def markdown(document: Document) -> str:
    """The document's text and tables; of its plots the captions."""
    sections = [_section(section) for section in document.sections]
    return "\n\n".join([f"# {document.title}", *sections]) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"## {section.title}", *(text for block in section.blocks if (text := _block(block)))])


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(head, rows):
            return table([head, *rows])
        case Plot(_, caption):
            return f"*Plot in report.html: {caption}*"
