"""Results with named fields."""


class Record:
    """Fields by name, which do not change."""

    def __init__(self, fields: dict):
        self.__dict__.update(fields)

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} cannot be set: a {type(self).__name__} does not change")

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __repr__(self):
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"
