"""The API, as it is written first in Flask."""

from flask import Flask

app = Flask(__name__)


@app.route("/api/hello")
def hello():
    return "Hello, World!", {"Content-Type": "text/plain; charset=utf-8"}
