"""The explorer: one page of HTML with all networks, which loads nothing and works offline.

`page.py` makes the page of what `networks.py` says of each network. The page's own script is in
`charts.js`, `drawing.js` and `explorer.js`; it draws with Observable Plot and D3, which are here as
they were published.
"""
