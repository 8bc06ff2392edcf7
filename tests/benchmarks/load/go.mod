module example.com/gpuhosts/load

go 1.24
