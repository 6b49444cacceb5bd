"""Results as a page to look at, and as pictures for papers.

`rows` reads what was measured; `comparison`, `sweeps` and `code` make figures of it as plain data
(`figures`), which `page` draws with Plotly into one HTML file and `pictures` with matplotlib.
`write` puts all of it into a folder.
"""
