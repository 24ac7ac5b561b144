"""What a figure shows, read back from it."""


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def panel(figure, title, place=0):
    return [axes for axes in visible(figure) if axes.get_title() == title][place]


def column(figure, title, n_rows, place=0):
    """The panels of a variant, from top to bottom."""
    own = visible(figure)
    top = own.index(panel(figure, title, place))
    grid = own[top].get_gridspec()
    return [
        axes
        for axes in own
        if axes.get_gridspec() is grid and axes.get_subplotspec().colspan == own[top].get_subplotspec().colspan
    ][:n_rows]


def line(axes, label):
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


def points(axes, label):
    return list(zip(*(list(map(float, values)) for values in line(axes, label).get_data()), strict=True))


def bars(axes, label):
    """Lengths of the bars of a series, from top to bottom."""
    (found,) = [container for container in axes.containers if container.get_label() == label]
    return [bar.get_width() for bar in found]


def dots(axes):
    """Values of the dots of each bar."""
    return [list(map(float, line.get_xdata())) for line in axes.get_lines() if line.get_marker() == "o"]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def titles(figure):
    """Titles of the settings' blocks."""
    return [block.get_suptitle() for block in figure.subfigs]
