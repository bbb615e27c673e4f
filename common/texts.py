"""What others say, made fit for one line of a terminal or a log."""


def one_line(text: str) -> str:
    """``text`` with a space for a tab or the end of a line, and ``?`` for what a terminal might obey.

    That is all that does not print: control and direction characters, and what no encoding knows.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
