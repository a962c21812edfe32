"""The explorer: one page in the browser whose sliders are the numbers of a problem and whose curves are the theory (docs/explore.md).

`state` is what the page shows, `session` computes it, `routes` hands it out, `guard` decides who may ask, `serving` runs the server. The
page itself lies in `page/`: plain HTML, CSS and modules of JavaScript, with the plotting library uPlot beside them.

Needs the extra: rfdiff[explore].
"""
